package etcd

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// zapLogger sends what etcd logs at warn level and above to log, each message at
// most three times a minute: a member that is away is reported again and again.
// Nothing is said once running has ended: etcd calls each listener that is
// closed in a planned stop an error. Fatal panics in place of ending the process, so
// that StartServer can say why.
func zapLogger(running context.Context, log *slog.Logger) *zap.Logger {
	core := zapcore.NewSamplerWithOptions(slogCore{running, log.Handler()}, time.Minute, 3, 0)
	return zap.New(core, zap.WithFatalHook(zapcore.WriteThenPanic))
}

// slogCore is a zapcore.Core on a slog.Handler.
type slogCore struct {
	running context.Context
	handler slog.Handler
}

// routine is what etcd warns of although nobody needs to know.
var routine = []string{
	// One port for gRPC and /health: a slow large answer may delay others. Ours are small.
	"Running http and grpc server on single port. This is not recommended for production.",
	// Once per start, election and half second without a leader: HasQuorum says it better.
	"waiting for ReadIndex response took too long, retrying",
}

func slogLevel(l zapcore.Level) slog.Level {
	switch {
	case l < zapcore.InfoLevel:
		return slog.LevelDebug
	case l < zapcore.WarnLevel:
		return slog.LevelInfo
	case l < zapcore.ErrorLevel:
		return slog.LevelWarn
	default:
		return slog.LevelError
	}
}

func (c slogCore) Enabled(l zapcore.Level) bool {
	return l >= zapcore.WarnLevel && c.running.Err() == nil && c.handler.Enabled(context.Background(), slogLevel(l))
}

func (c slogCore) With(fields []zapcore.Field) zapcore.Core {
	return slogCore{c.running, c.handler.WithAttrs(attrs(fields))}
}

func (c slogCore) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) && !slices.Contains(routine, e.Message) {
		return ce.AddCore(e, c)
	}
	return ce
}

func (c slogCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	r := slog.NewRecord(e.Time, slogLevel(e.Level), "etcd: "+e.Message, 0)
	r.AddAttrs(attrs(fields)...)
	return c.handler.Handle(context.Background(), r)
}

func (c slogCore) Sync() error { return nil }

func attrs(fields []zapcore.Field) []slog.Attr {
	enc := zapcore.NewMapObjectEncoder()
	for _, f := range fields {
		f.AddTo(enc)
	}
	out := make([]slog.Attr, 0, len(enc.Fields))
	for _, k := range slices.Sorted(maps.Keys(enc.Fields)) {
		out = append(out, slog.Any(k, enc.Fields[k]))
	}
	return out
}

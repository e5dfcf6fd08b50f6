package store

import (
	"context"
	"encoding/json"
	"errors"
)

// Reader is a store of which one key is read.
type Reader interface {
	Get(ctx context.Context, key string) (Entry, error)
}

// ReadJSON decodes the value of a key and returns its revision. Of a key that is not there it changes nothing in value, and the revision
// is 0: what a write that wants to create it has to name.
func ReadJSON(ctx context.Context, s Reader, key string, value any) (revision int64, err error) {
	e, err := s.Get(ctx, key)
	if errors.Is(err, ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return e.Revision, json.Unmarshal(e.Value, value)
}

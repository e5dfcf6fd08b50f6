package drill

import (
	"encoding/csv"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"
)

// Folder keeps the evidence of runs: one folder for each, with the ledger, the samples and the report.
type Folder struct{ Dir string }

// Ledger makes the ledger of a run.
func (f Folder) Ledger(run string) (*Ledger, error) {
	return NewLedger(filepath.Join(f.Dir, run, "ledger"))
}

// Samples writes every request of a run as samples.csv and returns the run's folder.
func (f Folder) Samples(run string, samples map[string][]Sample) (string, error) {
	dir := filepath.Join(f.Dir, run)
	out, err := os.Create(filepath.Join(dir, "samples.csv"))
	if err != nil {
		return "", err
	}
	err = WriteSamples(out, samples)
	if closeErr := out.Close(); err == nil {
		err = closeErr
	}
	return dir, err
}

// WriteSamples writes samples as CSV: probe, planned and taken time in milliseconds, failure.
func WriteSamples(w io.Writer, samples map[string][]Sample) error {
	out := csv.NewWriter(w)
	_ = out.Write([]string{"probe", "planned_ms", "took_ms", "failure"}) // Error tells
	number := func(d time.Duration) string {
		return strconv.FormatFloat(float64(d.Microseconds())/1000, 'f', 3, 64)
	}
	for _, probe := range slices.Sorted(maps.Keys(samples)) {
		for _, s := range samples[probe] {
			_ = out.Write([]string{probe, number(s.At), number(s.Took), s.Failure})
		}
	}
	out.Flush()
	return out.Error()
}

// Report writes the report of a run next to its other evidence.
func (f Folder) Report(r Report) error {
	if r.Evidence == "" {
		return nil
	}
	out, err := os.Create(filepath.Join(r.Evidence, "report.json"))
	if err != nil {
		return fmt.Errorf("report: %w", err)
	}
	err = WriteJSON(out, []Report{r}, false)
	if closeErr := out.Close(); err == nil {
		err = closeErr
	}
	return err
}

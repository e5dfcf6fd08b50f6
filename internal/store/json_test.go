package store_test

import (
	"testing"

	"nines/internal/store"
	"nines/internal/store/memstore"
)

func TestReadJSON(t *testing.T) {
	s := memstore.New()
	value := map[string]int{"before": 1}
	if rev, err := store.ReadJSON(t.Context(), s, "key", &value); rev != 0 || err != nil || value["before"] != 1 {
		t.Errorf("a key that is not there: %v, revision %d, %v", value, rev, err)
	}
	written, err := s.Put(t.Context(), "key", []byte(`{"after":2}`), 0)
	if err != nil {
		t.Fatal(err)
	}
	if rev, err := store.ReadJSON(t.Context(), s, "key", &value); rev != written || err != nil || value["after"] != 2 {
		t.Errorf("a key that is there: %v, revision %d (written %d), %v", value, rev, written, err)
	}
	if _, err := s.Put(t.Context(), "key", []byte(`{"after":`), written); err != nil {
		t.Fatal(err)
	}
	if _, err := store.ReadJSON(t.Context(), s, "key", &value); err == nil {
		t.Error("half a value is taken")
	}
}

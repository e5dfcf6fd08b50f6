package api

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

// What a client asks for is what the agent understands; who asks for nothing gets everything.
func TestLook(t *testing.T) {
	for _, look := range []Look{LookForDrift, LookAtHealth} {
		if got := LookOf(httptest.NewRequest(http.MethodGet, PathStatus+look.query(), nil)); got != look {
			t.Errorf("%q is understood as %d, want %d", look.query(), got, look)
		}
	}
	if LookForDrift.query() != "" {
		t.Errorf("the whole look must be what an old client gets, not %q", LookForDrift.query())
	}
}

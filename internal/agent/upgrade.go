package agent

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"nines/internal/api"
	"nines/internal/model"
)

// maxBinary bounds an uploaded executable, bytes.
const maxBinary = 512 << 20

// putBinary installs a new executable and ends this process; systemd starts the new
// one. The old one stays until the new one has proved that it runs here.
func (a *Agent) putBinary(w http.ResponseWriter, r *http.Request) error {
	tmp, err := os.CreateTemp(filepath.Dir(model.PathBinary), ".nines-new-")
	if err != nil {
		return fmt.Errorf("store the new executable: %w", err)
	}
	defer os.Remove(tmp.Name()) // gone already when it was renamed
	if _, err := io.Copy(tmp, http.MaxBytesReader(w, r.Body, maxBinary)); err != nil {
		tmp.Close()
		return fmt.Errorf("store the new executable: %w", err)
	}
	if err := install(tmp); err != nil {
		return err
	}
	api.WriteJSON(w, struct{}{})
	a.exit(ErrNewBinary)
	return nil
}

func install(tmp *os.File) error {
	if err := tmp.Chmod(0o755); err != nil {
		return err
	}
	if err := tmp.Sync(); err != nil {
		return err
	}
	if err := tmp.Close(); err != nil {
		return err
	}
	out, err := exec.Command(tmp.Name(), "--version").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "nines") {
		return &api.Error{Status: http.StatusBadRequest, Code: api.CodeInvalid, Text: fmt.Sprintf("the new executable does not run here: %v", err), Next: "build it for this machine's architecture"}
	}
	return os.Rename(tmp.Name(), model.PathBinary)
}

package guest

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// drivers are the modules that the guest needs: its bus, its network interface, its disks.
var drivers = []string{"virtio_pci", "virtio_net", "virtio_blk"}

// module is a module of the kernel as it is loaded.
type module struct {
	name    string
	content []byte
}

// modules are the modules of one kernel.
type modules struct {
	files   map[string]string // name -> path
	builtin map[string]bool
	read    func(ctx context.Context, path string) ([]byte, error)
}

// openModules looks through a folder as Debian's packages have it; busybox unpacks those that are compressed.
func openModules(folder, busybox string) (*modules, error) {
	m := &modules{files: map[string]string{}, builtin: map[string]bool{}, read: func(ctx context.Context, path string) ([]byte, error) {
		return readModule(ctx, path, busybox)
	}}
	err := filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && strings.Contains(d.Name(), ".ko") {
			m.files[moduleName(d.Name())] = path
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("modules of the kernel: %w", err)
	}
	list, err := os.ReadFile(filepath.Join(folder, "modules.builtin"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("modules of the kernel: %w", err)
	}
	for _, path := range strings.Fields(string(list)) {
		m.builtin[moduleName(path)] = true
	}
	return m, nil
}

// moduleName is what modprobe calls the module of a file.
func moduleName(path string) string {
	name, _, _ := strings.Cut(filepath.Base(path), ".ko")
	return strings.ReplaceAll(name, "-", "_")
}

// readModule reads a module; those of newer kernels are compressed.
func readModule(ctx context.Context, path, busybox string) ([]byte, error) {
	switch filepath.Ext(path) {
	case ".ko":
		return os.ReadFile(path)
	case ".xz":
		out, err := exec.CommandContext(ctx, busybox, "xz", "-dc", path).Output()
		if err != nil {
			return nil, fmt.Errorf("unpack %s: %w", path, err)
		}
		return out, nil
	}
	return nil, fmt.Errorf("%s is compressed in a way nines does not know: use another release's kernel, with --kernel and --ramdisk", path)
}

// resolve returns the wanted modules with all they depend on, in the order in which they can be loaded.
func (m *modules) resolve(ctx context.Context, wanted []string) ([]module, error) {
	var out []module
	var path []string // from a wanted module to the one that is looked at
	done := map[string]bool{}
	var visit func(name string) error
	visit = func(name string) error {
		name = moduleName(name)
		if slices.Contains(path, name) {
			return fmt.Errorf("modules depend on each other: %s", strings.Join(append(path, name), " -> "))
		}
		if done[name] || m.builtin[name] {
			return nil
		}
		file, ok := m.files[name]
		if !ok {
			return fmt.Errorf("the kernel has no module %s", strings.Join(append(path, name), " -> "))
		}
		content, err := m.read(ctx, file)
		if err != nil {
			return err
		}
		needs, err := dependencies(content)
		if err != nil {
			return fmt.Errorf("module %s: %w", file, err)
		}
		path = append(path, name)
		for _, need := range needs {
			if err := visit(need); err != nil {
				return err
			}
		}
		path = path[:len(path)-1]
		done[name] = true
		out = append(out, module{name: name, content: content})
		return nil
	}
	for _, name := range wanted {
		if err := visit(name); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// dependencies returns what a module says it depends on. Packages have no modules.dep: depmod makes it where they
// are installed.
func dependencies(content []byte) ([]string, error) {
	file, err := elf.NewFile(bytes.NewReader(content))
	if err != nil {
		return nil, err
	}
	section := file.Section(".modinfo")
	if section == nil {
		return nil, errors.New("it has no section .modinfo")
	}
	info, err := section.Data()
	if err != nil {
		return nil, err
	}
	return dependsOf(info), nil
}

// dependsOf reads NAME=VALUE texts that end with zeros.
func dependsOf(info []byte) []string {
	for _, field := range strings.Split(string(info), "\x00") {
		if list, ok := strings.CutPrefix(field, "depends="); ok && list != "" {
			return strings.Split(list, ",")
		}
	}
	return nil
}

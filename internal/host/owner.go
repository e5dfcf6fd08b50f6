package host

import (
	"fmt"
	"os"
	"os/user"
	"strconv"
	"sync"
)

// ownerCache maps numeric owners to names. Looking a name up reads /etc/passwd, which
// would dominate the time of observing a hundred files; entries are dropped when
// /etc/passwd or /etc/group change.
type ownerCache struct {
	mu                      sync.Mutex
	passwdStamp, groupStamp fileStamp
	users, groups           map[uint32]string
}

// fileStamp tells whether a file is another than it was.
type fileStamp struct {
	mtime int64
	size  int64
	inode uint64
}

func (c *ownerCache) refresh() {
	p, g := stampOf("/etc/passwd"), stampOf("/etc/group")
	if c.users == nil || p != c.passwdStamp || g != c.groupStamp {
		c.passwdStamp, c.groupStamp = p, g
		c.users, c.groups = map[uint32]string{}, map[uint32]string{}
	}
}

// user returns the name of the user, or its number when it has none.
func (c *ownerCache) user(uid uint32) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refresh()
	if name, ok := c.users[uid]; ok {
		return name
	}
	name := strconv.Itoa(int(uid))
	if u, err := user.LookupId(name); err == nil {
		name = u.Username
	}
	c.users[uid] = name
	return name
}

// group returns the name of the group, or its number when it has none.
func (c *ownerCache) group(gid uint32) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refresh()
	if name, ok := c.groups[gid]; ok {
		return name
	}
	name := strconv.Itoa(int(gid))
	if g, err := user.LookupGroupId(name); err == nil {
		name = g.Name
	}
	c.groups[gid] = name
	return name
}

// ids returns the numbers of owner and group; an empty name means the process's own.
func (c *ownerCache) ids(owner, group string) (uid, gid int, err error) {
	uid, gid = os.Geteuid(), os.Getegid()
	if owner != "" {
		if uid, err = userID(owner); err != nil {
			return 0, 0, fmt.Errorf("owner: %w", err)
		}
	}
	if group != "" {
		if gid, err = groupID(group); err != nil {
			return 0, 0, fmt.Errorf("group: %w", err)
		}
	}
	return uid, gid, nil
}

func userID(name string) (int, error) {
	u, err := user.Lookup(name)
	if err != nil {
		if n, numErr := strconv.Atoi(name); numErr == nil {
			return n, nil
		}
		return 0, err
	}
	return strconv.Atoi(u.Uid)
}

func groupID(name string) (int, error) {
	g, err := user.LookupGroup(name)
	if err != nil {
		if n, numErr := strconv.Atoi(name); numErr == nil {
			return n, nil
		}
		return 0, err
	}
	return strconv.Atoi(g.Gid)
}

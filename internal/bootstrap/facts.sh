# Tells what bootstrap must know of a machine, one "key value" a line. It changes nothing.
export LC_ALL=C
say() { printf '%s %s\n' "$1" "$2"; }

say now "$(date +%s.%N)"
if [ -r /etc/os-release ]; then
	. /etc/os-release
	say os "$ID"
	say codename "${VERSION_CODENAME:-}"
	say pretty "${PRETTY_NAME:-}"
fi
say arch "$(dpkg --print-architecture 2>/dev/null || uname -m)"
say init "$(cat /proc/1/comm)"
say system "$(systemctl is-system-running 2>/dev/null)"
say agent "$(systemctl is-active nines-agent.service 2>/dev/null)"
say socket "$(systemctl is-active nines-health.socket 2>/dev/null)"
say enabled "$(systemctl is-enabled nines-agent.service nines-health.socket 2>/dev/null | tr '\n' ',')"
for tool in ip ss tar gzip sha256sum base64 groupadd; do
	command -v "$tool" >/dev/null || say missing "$tool"
done

# The nearest folder that exists, since /var/lib/nines comes later.
for dir in /usr/local /etc /var/lib; do
	say free "$dir $(df -Pk "$dir" | awk 'NR == 2 { print $4 }')"
done
ip -o addr show 2>/dev/null | while read -r _ dev _ addr _; do
	say addr "$dev $addr"
done
listening=$(ss -Hltnp '( sport >= :7440 and sport <= :7443 )' 2>/dev/null)
[ -z "$listening" ] || echo "$listening" | while read -r _ _ _ local _ users; do
	say listen "$local $users"
done
for pid in $(echo "$listening" | grep -o 'pid=[0-9]*' | cut -d= -f2 | sort -u); do
	say cgroup "$pid $(tail -n1 "/proc/$pid/cgroup" 2>/dev/null)"
done
[ ! -d /var/lib/nines/etcd ] || say store yes
[ ! -e /usr/local/bin/nines ] || say binary "$(sha256sum </usr/local/bin/nines | cut -d' ' -f1)"
for file in /etc/nines/agent.json /etc/nines/cluster.key /etc/nines/authority.key /etc/nines/tls/ca.pem /etc/nines/tls/node.pem /etc/nines/tls/node.key \
	/etc/systemd/system/nines-agent.service /etc/systemd/system/nines-health.socket; do
	[ ! -f "$file" ] || say file "$file $(stat -c '%a %U:%G' "$file") $(base64 -w0 "$file")"
done
say end ok

# Runs inside the build's chroot. INSTALL: packages of the image; OFFER: packages
# that are only to be in the lab's repository.
enabled() {
	find /etc/systemd/system /etc/rc?.d -type l \( -path '*.wants/*' -o -path '*.requires/*' -o -name 'S*' \) 2>/dev/null | sort
}
apt="apt-get -q -y --no-install-recommends -o APT::Keep-Downloaded-Packages=true"

echo "step: read the package lists"
$apt update
echo "step: download packages"
# shellcheck disable=SC2086
$apt install --download-only $INSTALL $OFFER
enabled >/tmp/before
echo "step: install packages"
# shellcheck disable=SC2086
$apt install $INSTALL

# Nothing that a package brought starts at boot before nines has configured and
# enabled it. Timers of the base system (log rotation) may.
echo "step: keep the services from starting at boot"
enabled >/tmp/after
for link in $(comm -13 /tmp/before /tmp/after); do
	case $link in
	/etc/systemd/*) echo "${link##*/}" ;;
	esac
done | sort -u >/tmp/units
while read -r unit; do
	case $unit in
	logrotate.timer) ;;
	*) systemctl disable "$unit" ;;
	esac
done </tmp/units
# What has a script of old alone (Neutron's workers) starts by its links.
comm -13 /tmp/before /tmp/after | sed -n 's,^/etc/rc..d/S[0-9][0-9],,p' | sort -u | while read -r script; do
	update-rc.d "$script" disable
done
rm -f /tmp/before /tmp/after /tmp/units

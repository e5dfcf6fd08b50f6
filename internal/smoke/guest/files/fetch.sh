#!/bin/sh
# Fetches what the guest of 'nines smoke' is made of from Debian packages: the kernel for virtual machines, its
# modules, and a static busybox. It needs apt and dpkg-deb, no root, and changes nothing outside FOLDER.
#
#   fetch.sh --names     the files of the packages, as apt would download them now
#   fetch.sh FOLDER      FOLDER/kernel, FOLDER/busybox and the modules below FOLDER/modules
#
# nines makes the ramdisk of them: 'nines smoke --guest-only'.
set -eu
LC_ALL=C
export LC_ALL

fail() {
	echo "$1" >&2
	exit 1
}

# needs PACKAGE PATTERN: the packages it depends on whose names begin with the pattern.
needs() { apt-cache depends --important "$1" | sed -n "s/^ *Depends: \($2[^ ]*\)\$/\1/p"; }

[ $# -eq 1 ] || fail "usage: $0 --names | FOLDER"
command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || fail "this is not a Debian system: there is no apt-get or no dpkg-deb"

image=$(needs linux-image-cloud-amd64 'linux-image-[0-9]' | head -n 1)
[ -n "$image" ] || fail "apt knows no linux-image-cloud-amd64"
# Newer kernels are packages of their own, beside the modules.
packages="busybox-static $image $(needs "$image" 'linux-binary-[0-9]') $(needs "$image" 'linux-modules-[0-9]')"

if [ "$1" = --names ]; then
	# shellcheck disable=SC2086 # they are words
	apt-get download --print-uris $packages | sed -n "s/^'[^']*' \([^ ]*\) .*/\1/p" | sort
	exit
fi

mkdir -p "$1"
cd "$1"
mkdir packages root
cd packages
# shellcheck disable=SC2086
apt-get -q download $packages
cd ..
for deb in packages/*.deb; do
	dpkg-deb -x "$deb" root
done

# The kernel's package has more than one file in /boot; /lib and /bin may be below /usr.
found() {
	for file in "$@"; do
		[ ! -e "$file" ] || { echo "$file"; return; }
	done
	fail "the packages have none of: $*"
}
mv "$(found root/boot/vmlinuz-* root/usr/lib/modules/*/vmlinuz)" kernel
mv "$(found root/bin/busybox root/usr/bin/busybox)" busybox
mv "$(found root/lib/modules/* root/usr/lib/modules/*)" modules
rm -rf packages root

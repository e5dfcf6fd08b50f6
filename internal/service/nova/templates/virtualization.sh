#!/bin/sh
# Written by nines: changes are drift and will be undone.
#
# Writes what only the node can know of how it runs guests, before a daemon that reads it starts:
#   virtualization nova FILE      virt_type of nova-compute
#   virtualization libvirt FILE   qemu.conf of libvirtd
set -eu

# KVM counts if a guest runs on it. Inside other machines /dev/kvm may be there and run none; without the
# processor's help (vmx, svm) it interprets each instruction, and a Linux stops at the first one it does not know. The
# guest is a boot sector that writes 16 to the port of a device, which ends QEMU with status 2 x 16 + 1.
kvm_runs_guests() {
	[ -w /dev/kvm ] || return 1
	[ "$(uname -m)" = x86_64 ] || return 0 # the trial is for this one only
	grep -qwE 'vmx|svm' /proc/cpuinfo || return 1
	sector=$(mktemp)
	printf '\260\020\346\364\364\353\375' >"$sector"
	truncate -s 510 "$sector"
	printf '\125\252' >>"$sector"
	status=0
	timeout 10 qemu-system-x86_64 -accel kvm -m 16 -nodefaults -display none -no-reboot \
		-device isa-debug-exit,iobase=0xf4,iosize=1 -drive "file=$sector,format=raw,if=ide" >/dev/null 2>&1 || status=$?
	rm -f "$sector"
	[ "$status" -eq 33 ]
}

put() {
	umask 022
	cat >"$1.new"
	mv "$1.new" "$1"
}

case $1 in
nova)
	if kvm_runs_guests; then
		echo "guests run on KVM"
		printf '[libvirt]\nvirt_type = kvm\n' | put "$2"
	else
		echo "no guest runs on KVM here: QEMU emulates"
		printf '[libvirt]\nvirt_type = qemu\ncpu_mode = none\n' | put "$2"
	fi
	;;
libvirt)
	if systemd-detect-virt --quiet --container; then
		# Control groups and security modules are the host's.
		printf 'cgroup_controllers = []\nsecurity_driver = "none"\n' | put "$2"
	else
		printf '# The defaults are right on a machine of its own.\n' | put "$2"
	fi
	;;
*)
	echo "virtualization: nova or libvirt, not $1" >&2
	exit 2
	;;
esac

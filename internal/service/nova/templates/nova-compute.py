#!/usr/bin/python3
# Written by nines: changes are drift and will be undone.
#
# nova-compute, with libvirt's events. On a compute that is new to the cluster Nova 31 connects to libvirt before it has
# said how events are to be heard (_sanity_check_new_host in nova/compute/manager.py), and until its next start hears
# none: detaching a volume takes 20 s more, and an instance that ends by itself is noticed minutes later.
import sys

from nova.cmd.compute import main  # replaces parts of Python: before anything else

import libvirt

libvirt.virEventRegisterDefaultImpl()
sys.exit(main())

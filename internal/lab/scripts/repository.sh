# Runs inside a throw-away chroot with the repository bound to /srv. SUITE: name of
# the distribution; KEY: file name of the public key.
apt-get -q -y --no-install-recommends install apt-utils gpg gpg-agent
arch=$(dpkg --print-architecture)
cd /srv
index=dists/$SUITE/main/binary-$arch
mkdir -p "$index"
apt-ftparchive packages pool >"$index/Packages"
gzip -9nk "$index/Packages"
apt-ftparchive \
	-o "APT::FTPArchive::Release::Origin=nines-lab" \
	-o "APT::FTPArchive::Release::Label=nines-lab" \
	-o "APT::FTPArchive::Release::Suite=$SUITE" \
	-o "APT::FTPArchive::Release::Codename=$SUITE" \
	-o "APT::FTPArchive::Release::Architectures=$arch" \
	-o "APT::FTPArchive::Release::Components=main" \
	release "dists/$SUITE" >/tmp/Release
mv /tmp/Release "dists/$SUITE/Release"

GNUPGHOME=$(mktemp -d)
export GNUPGHOME
gpg --batch --quiet --passphrase '' --quick-generate-key 'nines lab repository' ed25519 sign never
gpg --batch --quiet --armor --export >"$KEY"
gpg --batch --quiet --yes --digest-algo SHA512 --clearsign --output "dists/$SUITE/InRelease" "dists/$SUITE/Release"
chmod -R a+rX .

package api

import (
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"
)

// hintExpired is what to do about a certificate that is not accepted.
const hintExpired = "compare the clocks first: a wrong one looks the same; then 'nines apply' renews certificates over SSH, even if no agent can be reached"

// Expired reports whether the error comes from an agent's certificate that is out of its time.
func Expired(err error) bool { return expired(err) != nil }

func expired(err error) *x509.Certificate {
	var invalid x509.CertificateInvalidError
	if errors.As(err, &invalid) && invalid.Reason == x509.Expired {
		return invalid.Cert
	}
	return nil
}

// refused reports whether the other side does not accept our own certificate for its time. TLS
// says it by an alert, for which Go has no type.
func refused(err error) bool {
	var u *UnreachableError
	if errors.As(err, &u) {
		err = u.Err // its text is in our words
	}
	return err != nil && strings.Contains(err.Error(), "remote error: tls: expired certificate")
}

// certificateTrouble puts an error about a certificate's time into words; "" for any other.
func certificateTrouble(err error, now time.Time) string {
	const minute = "2006-01-02 15:04 UTC"
	if c := expired(err); c != nil {
		whose := "its certificate"
		if c.IsCA {
			whose = "the cluster's authority"
		}
		if now.Before(c.NotBefore) {
			return fmt.Sprintf("%s is valid only from %s on", whose, c.NotBefore.UTC().Format(minute))
		}
		return fmt.Sprintf("%s expired on %s", whose, c.NotAfter.UTC().Format(minute))
	}
	if refused(err) {
		return "it does not accept the certificate it was asked with: expired"
	}
	return ""
}

// Package e2e holds the tests that run against real components in the lab. They
// are skipped, with one clear line, where no lab can run.
package e2e

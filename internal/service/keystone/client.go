package keystone

import (
	"fmt"
	"strconv"
	"strings"

	"nines/internal/model"
)

// ClientFiles returns the client configuration of the admin user: clouds.yaml, with
// one cloud named after the cluster, and openrc for shells. caPath is the
// cluster's certificate authority on the client's machine. Both hold the
// password: write them with mode 0600.
func ClientFiles(c *model.Cluster, adminPassword, caPath string) (clouds, openrc string) {
	url := PublicURL(c) + "/v3"
	q := strconv.Quote // JSON-like strings are YAML strings
	clouds = fmt.Sprintf(`clouds:
  %s:
    auth:
      auth_url: %s
      username: admin
      password: %s
      project_name: admin
      user_domain_name: Default
      project_domain_name: Default
    region_name: %s
    interface: public
    identity_api_version: 3
    cacert: %s
`, q(c.Name), q(url), q(adminPassword), Region, q(caPath))
	var b strings.Builder
	for _, kv := range [][2]string{
		{"OS_AUTH_URL", url}, {"OS_USERNAME", "admin"}, {"OS_PASSWORD", adminPassword},
		{"OS_PROJECT_NAME", "admin"}, {"OS_USER_DOMAIN_NAME", "Default"}, {"OS_PROJECT_DOMAIN_NAME", "Default"},
		{"OS_REGION_NAME", Region}, {"OS_INTERFACE", "public"}, {"OS_IDENTITY_API_VERSION", "3"}, {"OS_CACERT", caPath},
	} {
		fmt.Fprintf(&b, "export %s='%s'\n", kv[0], strings.ReplaceAll(kv[1], "'", `'\''`))
	}
	return clouds, b.String()
}

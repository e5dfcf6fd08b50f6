package lab

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/json"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// resetType is what Redfish calls the ways to switch a machine.
type resetType string

const (
	resetOn         resetType = "On"
	resetForceOff   resetType = "ForceOff"
	resetShutdown   resetType = "GracefulShutdown"
	resetRestart    resetType = "GracefulRestart"
	resetForced     resetType = "ForceRestart"
	resetPowerCycle resetType = "PowerCycle"
)

var resetTypes = []resetType{resetOn, resetForceOff, resetShutdown, resetRestart, resetForced, resetPowerCycle}

// switchable is a machine as its BMC sees it.
type switchable interface {
	on() (bool, error)
	// reset returns when it is done, or ctx has ended.
	reset(ctx context.Context, kind resetType) error
}

// redfish is the part of a BMC that speaks Redfish (DMTF DSP0266): the service root, sessions, and one system
// whose power can be seen and switched. Everything but the root wants a session or the password.
type redfish struct {
	node           string
	user, password string
	machine        switchable
	mode           func() BMCMode
	log            *slog.Logger

	mu       sync.Mutex
	sessions map[string]string  // token -> id
	cancel   context.CancelFunc // ends the switching under way
}

// Paths of the service.
const (
	redfishRoot     = "/redfish/v1"
	redfishSystems  = redfishRoot + "/Systems"
	redfishSystem   = redfishSystems + "/1"
	redfishReset    = redfishSystem + "/Actions/ComputerSystem.Reset"
	redfishService  = redfishRoot + "/SessionService"
	redfishSessions = redfishService + "/Sessions"
)

type object = map[string]any

func link(path string) object { return object{"@odata.id": path} }

func (b *redfish) handler() http.Handler {
	mux := http.NewServeMux()
	open := func(pattern string, f http.HandlerFunc) { mux.HandleFunc(pattern, f) }
	closed := func(pattern string, f http.HandlerFunc) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if !b.known(r) {
				refuse(w, http.StatusUnauthorized, "Base.1.19.InsufficientPrivilege", "user and password, or a session, are missing or wrong")
				return
			}
			f(w, r)
		})
	}
	open("GET /redfish", func(w http.ResponseWriter, _ *http.Request) { answer(w, object{"v1": redfishRoot + "/"}) })
	open("GET "+redfishRoot, b.root)
	open("GET "+redfishRoot+"/{$}", b.root)
	open("POST "+redfishSessions, b.login)
	closed("GET "+redfishService, b.sessionService)
	closed("GET "+redfishSessions, b.listSessions)
	closed("DELETE "+redfishSessions+"/{id}", b.logout)
	closed("GET "+redfishSystems, b.systems)
	closed("GET "+redfishSystem, b.system)
	closed("POST "+redfishReset, b.reset)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if b.mode() == BMCSlow {
			select {
			case <-time.After(bmcDelay):
			case <-r.Context().Done():
			}
		}
		r.Body = http.MaxBytesReader(w, r.Body, 64<<10)
		w.Header().Set("OData-Version", "4.0")
		mux.ServeHTTP(w, r)
	})
}

func (b *redfish) root(w http.ResponseWriter, _ *http.Request) {
	answer(w, object{
		"@odata.id": redfishRoot + "/", "@odata.type": "#ServiceRoot.v1_16_0.ServiceRoot",
		"Id": "RootService", "Name": "BMC of " + b.node, "RedfishVersion": "1.18.0", "Vendor": "nines lab",
		"Systems": link(redfishSystems), "SessionService": link(redfishService),
		"Links": object{"Sessions": link(redfishSessions)},
	})
}

func (b *redfish) sessionService(w http.ResponseWriter, _ *http.Request) {
	answer(w, object{"@odata.id": redfishService, "@odata.type": "#SessionService.v1_1_9.SessionService",
		"Id": "SessionService", "Name": "Sessions", "ServiceEnabled": true, "SessionTimeout": 1800, "Sessions": link(redfishSessions)})
}

func (b *redfish) listSessions(w http.ResponseWriter, _ *http.Request) {
	b.mu.Lock()
	defer b.mu.Unlock()
	members := []object{}
	for _, id := range b.sessions {
		members = append(members, link(redfishSessions+"/"+id))
	}
	answer(w, object{"@odata.id": redfishSessions, "@odata.type": "#SessionCollection.SessionCollection",
		"Name": "Sessions", "Members@odata.count": len(members), "Members": members})
}

func (b *redfish) systems(w http.ResponseWriter, _ *http.Request) {
	answer(w, object{"@odata.id": redfishSystems, "@odata.type": "#ComputerSystemCollection.ComputerSystemCollection",
		"Name": "Systems", "Members@odata.count": 1, "Members": []object{link(redfishSystem)}})
}

func (b *redfish) system(w http.ResponseWriter, _ *http.Request) {
	on, err := b.machine.on()
	if err != nil {
		refuse(w, http.StatusInternalServerError, "Base.1.19.InternalError", err.Error())
		return
	}
	power := "Off"
	if on {
		power = "On"
	}
	answer(w, object{
		"@odata.id": redfishSystem, "@odata.type": "#ComputerSystem.v1_22_0.ComputerSystem",
		"Id": "1", "Name": b.node, "HostName": b.node, "SystemType": "Virtual", "Manufacturer": "nines", "Model": "lab",
		"PowerState": power, "Status": object{"State": "Enabled", "Health": "OK"},
		"Actions": object{"#ComputerSystem.Reset": object{"target": redfishReset, "ResetType@Redfish.AllowableValues": resetTypes}},
	})
}

// reset begins to switch and answers at once, as BMCs do: PowerState says when it is done. A new
// command takes the place of one that is still at work, like a shutdown that hangs.
func (b *redfish) reset(w http.ResponseWriter, r *http.Request) {
	var body struct{ ResetType resetType }
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil || !slices.Contains(resetTypes, body.ResetType) {
		refuse(w, http.StatusBadRequest, "Base.1.19.ActionParameterValueNotInList", "ResetType must be one of those the system lists")
		return
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.Context()))
	b.mu.Lock()
	if b.cancel != nil {
		b.cancel()
	}
	b.cancel = cancel
	b.mu.Unlock()
	b.log.Info("BMC switches", "node", b.node, "reset", body.ResetType, "from", r.RemoteAddr)
	go func() {
		defer cancel()
		if err := b.machine.reset(ctx, body.ResetType); err != nil && ctx.Err() == nil {
			b.log.Error("BMC", "node", b.node, "reset", body.ResetType, "error", err)
		}
	}()
	w.WriteHeader(http.StatusNoContent)
}

func (b *redfish) login(w http.ResponseWriter, r *http.Request) {
	var body struct{ UserName, Password string }
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		refuse(w, http.StatusBadRequest, "Base.1.19.MalformedJSON", "UserName and Password are expected")
		return
	}
	if !b.right(body.UserName, body.Password) {
		refuse(w, http.StatusUnauthorized, "Base.1.19.ResourceAtUriUnauthorized", "user or password is wrong")
		return
	}
	token, id := rand.Text(), rand.Text()
	b.mu.Lock()
	if b.sessions == nil {
		b.sessions = map[string]string{}
	}
	b.sessions[token] = id
	b.mu.Unlock()
	path := redfishSessions + "/" + id
	w.Header().Set("X-Auth-Token", token)
	w.Header().Set("Location", path)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusCreated)
	answer(w, object{"@odata.id": path, "@odata.type": "#Session.v1_7_2.Session", "Id": id, "Name": "Session", "UserName": b.user})
}

func (b *redfish) logout(w http.ResponseWriter, r *http.Request) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for token, id := range b.sessions {
		if id == r.PathValue("id") {
			delete(b.sessions, token)
			w.WriteHeader(http.StatusNoContent)
			return
		}
	}
	refuse(w, http.StatusNotFound, "Base.1.19.ResourceMissingAtURI", "there is no such session")
}

// known reports whether the request carries a session's token or the password.
func (b *redfish) known(r *http.Request) bool {
	if token := r.Header.Get("X-Auth-Token"); token != "" {
		b.mu.Lock()
		defer b.mu.Unlock()
		_, ok := b.sessions[token]
		return ok
	}
	user, password, ok := r.BasicAuth()
	return ok && b.right(user, password)
}

func (b *redfish) right(user, password string) bool {
	return b.mode() != BMCPassword && subtle.ConstantTimeCompare([]byte(user), []byte(b.user)) == 1 &&
		subtle.ConstantTimeCompare([]byte(password), []byte(b.password)) == 1
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // the client is gone: nobody left to tell
}

func refuse(w http.ResponseWriter, status int, code, text string) {
	if status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Basic realm="Redfish"`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	answer(w, object{"error": object{"code": code, "message": strings.ToUpper(text[:1]) + text[1:] + ".",
		"@Message.ExtendedInfo": []object{{"MessageId": code, "Message": text, "Severity": "Critical"}}}})
}

package e2e

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

// diverge makes a quorum queue and has one of its replicas apply entries of an older term that its leader does not have, which is where Ra before
// 2.15.2 ends by itself now and then (rabbitmq/ra 508). It prints the replica's node.
const diverge = `
Q = rabbit_misc:r(<<"/">>, queue, <<"nines-diverged">>),
{new, _} = rabbit_amqqueue:declare(Q, true, false, [{<<"x-queue-type">>, longstr, <<"quorum">>}], none, <<"nines">>),
Name = list_to_atom("%2F_nines-diverged"),
{ok, Members, Leader} = ra:members({Name, node()}),
[Other | _] = lists:delete(Leader, Members),
Change = fun(Who, With) -> sys:replace_state(Who, fun({State, Data}) -> {State, setelement(3, Data, With(element(3, Data)))} end) end,
Peer = fun(With) -> fun(#{cluster := C} = S) -> S#{cluster := C#{Other := With(S, maps:get(Other, C))}} end end,
Change(Leader, Peer(fun(_, P) -> P#{status := suspended} end)),
[{ok, _, _} = ra:process_command(Leader, rabbit_fifo:make_purge()) || _ <- lists:seq(1, 20)],
Change(Other, fun(#{log := Log, last_applied := A, current_term := T} = S) ->
  {ok, Written} = ra_log:write([{A + I, T - 1, {noop, #{ts => 0}, 0}} || I <- lists:seq(1, 10)], Log),
  S#{log := Written, last_applied := A + 10, commit_index := A + 10} end),
Change(Leader, Peer(fun(#{last_applied := A}, P) -> P#{status := normal, next_index := A - 9} end)),
io:format("~s~n", [element(2, Other)]).`

// divergedReplica has a replica refuse its leader for good, and waits until its node has made it anew.
func divergedReplica(t *testing.T) {
	on := func(node, command string) string {
		return must(t, time.Minute, "lab", "ssh", "--name", labName, node, "--", command)
	}
	said := strings.Fields(on("ctl1", "rabbitmqctl -q eval '"+diverge+"'"))
	broker := said[0]
	node, ok := strings.CutPrefix(broker, "rabbit@")
	if !ok {
		t.Fatalf("whose replica: %q", said)
	}
	t.Cleanup(func() { on("ctl1", "rabbitmqctl -q delete_queue nines-diverged") })

	behind := func() bool {
		var rows []struct {
			Node    string `json:"Node Name"`
			State   string `json:"Raft State"`
			Applied any    `json:"Last Applied"`
		}
		out := on("ctl1", "rabbitmqctl -q purge_queue nines-diverged && rabbitmq-queues -q --formatter json quorum_status nines-diverged")
		if err := json.Unmarshal([]byte(out[strings.Index(out, "["):]), &rows); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		var own, leader float64
		for _, r := range rows {
			n, _ := r.Applied.(float64)
			switch {
			case r.Node == broker:
				own = n
			case r.State == "leader":
				leader = n
			}
		}
		return own+5 < leader
	}
	if time.Sleep(time.Second); !behind() {
		t.Fatal("the replica goes with its leader: nothing is shown")
	}
	for deadline := time.Now().Add(100 * time.Second); behind(); time.Sleep(3 * time.Second) {
		if time.Now().After(deadline) {
			t.Fatal("it was not made anew")
		}
	}
	if said := on(node, "journalctl -u nines-agent --since=-2min --no-pager -o cat"); !strings.Contains(said, "made anew from the others") {
		t.Errorf("it mended itself: %s", said)
	}
}

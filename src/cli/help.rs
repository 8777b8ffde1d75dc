//! What the `--help` of each command says after its arguments: examples, and exit codes.

pub(super) const RUN_HELP: &str = "\
Examples:
  openclaw-controller run --base-url https://mission.example
  openclaw-controller run --listen 0.0.0.0:8080 --templates-dir ./templates --base-url https://mission.example
  OPENCLAW_CONTROLLER_RESYNC_INTERVAL=5m openclaw-controller run
  curl http://127.0.0.1:8080/readyz                        whether it can work, check by check

Exit codes: 0 stopped by a signal; 2 the settings or the database's tables cannot be used; 130 ended at once by a
second signal. A database or gateway that does not answer is waited for.";

pub(super) const MIGRATE_HELP: &str = "\
Examples:
  openclaw-controller migrate                              before a `run --no-migrate`, as a role that may create tables
  openclaw-controller migrate && openclaw-controller diff

Exit codes: 0 up to date; 2 something is in the way (nothing was changed), or the database cannot be used.";

pub(super) const DIFF_HELP: &str = "\
Examples:
  openclaw-controller diff --base-url https://mission.example --templates-dir ./templates
  openclaw-controller diff --gateway Red -o json           one gateway, by its name, its id, or the beginning of that
  openclaw-controller diff >/dev/null; echo $?             for scripts: the exit code alone

Give it the same settings as `run` (flags or environment): the base URL and the templates decide what files hold.

Exit codes: 0 no difference; 1 differences; 2 something could not be looked at, or there is no such gateway.";

pub(super) const GET_HELP: &str = "\
Examples:
  openclaw-controller get agents                           who is ready, and why not
  openclaw-controller get gateways -o wide                 with ids, URLs and messages
  openclaw-controller get agents --gateway Red --not-ready -o yaml
  openclaw-controller get agents --condition Paused=True --watch
  openclaw-controller get events --warnings                what went wrong lately
  openclaw-controller get agents -o json | jq '.items[] | select(.ready.status != \"True\")'
  openclaw-controller get unmanaged --gateway Red          whose the other agents on it are, before the first `run`

A gateway, board or agent is called by its id, the beginning of its id, its name, or its slug, as long as only one is meant by it;
BOARD/NAME tells agents of the same name apart. With --watch, what leaves the list is printed once more, as Gone.

Exit codes: 0 listed, even if nothing was found; 2 the database cannot be used, there is no such object, or (unmanaged) a
gateway could not be asked; 130 --watch was ended by a signal.";

pub(super) const DESCRIBE_HELP: &str = "\
Examples:
  openclaw-controller describe agent Wren                  its conditions, its last events, and what would change
  openclaw-controller describe agent \"Website/Lead Agent\"  one of several of that name
  openclaw-controller describe gateway Red --plan=never    from the database alone
  openclaw-controller describe board Website -o yaml

The plan is what `diff` shows, for this object alone. Give it the settings of `run` (flags or environment), or it is the plan of
a controller with other settings. Without --plan a gateway is asked only if something is not as desired and the device key
of --device-identity exists already.

Exit codes: 0 described, whatever state it is in and even if its gateway could not be asked; 2 the database cannot be used, or there
is no such object.";

pub(super) const APPLY_HELP: &str = "\
Examples:
  openclaw-controller export >fleet.yaml                   begin with what there is
  openclaw-controller apply -f fleet.yaml --dry-run        what would change
  openclaw-controller apply -f fleet.yaml --prune          change it, and remove what is not in the file
  openclaw-controller apply --schema >fleet.schema.json    for editors that complete and check YAML

Exit codes: 0 applied, nothing to do, or a dry run; 2 something is wrong with the file (each problem with its line and
column) or with the database: nothing was applied.";

pub(super) const EXPORT_HELP: &str = "\
Examples:
  openclaw-controller export >fleet.yaml
  openclaw-controller export --organization 'Harbour museum' | openclaw-controller apply -f - --dry-run

Exit codes: 0 printed; 2 there is no such organization, or the database cannot be used.";

pub(super) const ROTATE_HELP: &str = "\
Examples:
  openclaw-controller rotate-token --all --wait            every agent, with progress, until all is done
  openclaw-controller rotate-token --board Website
  openclaw-controller rotate-token --agent Wren --agent 0f00 --wait --timeout 2m

Exit codes: 0 requested, or with --wait: done; 1 not every agent had its new token in time (each is listed with the reason;
the rotation goes on); 2 an id is not known (nothing was requested), or the database cannot be used; 130 the waiting was
ended by a signal (the rotation goes on).";

pub(super) const SYNC_HELP: &str = "\
Examples:
  openclaw-controller sync --gateway Red
  openclaw-controller sync --gateway Red --rotate-tokens -o json | jq .errors
  openclaw-controller sync --gateway Red --board Website --no-include-main --reset-sessions

Without options it changes nothing that the controller would not change, and tells which agents match. A token that is lost or
does not match is replaced with --rotate-tokens only. Agents of a paused board are skipped; that is no error.

Exit codes: 0 no errors; 1 the result holds errors (or warnings); 2 the request could not be made (a gateway or user that is
not there, the database) or nobody answered it; 130 the waiting was ended by a signal (a controller that has taken the sync up
goes on).";

pub(super) const WAKE_HELP: &str = "\
Examples:
  openclaw-controller wake --agent Wren                    have it start, and check in
  openclaw-controller wake --board Website
  openclaw-controller describe agent Wren                  what became of it

Agents of a paused board are woken when it goes on. A controller that runs with --no-wake wakes nobody.

Exit codes: 0 requested; 2 an agent, board or gateway is not known (nothing was requested), or the database cannot be used.";

pub(super) const PAUSE_HELP: &str = "\
Examples:
  openclaw-controller pause --board Website
  openclaw-controller pause --gateway Red                  all its boards
  openclaw-controller get agents --condition Paused=True

A board is paused as a whole: it is the last /pause or /resume in its chat that counts, whoever said it.

Exit codes: 0 paused, or paused already; 2 a board or gateway is not known (nothing was changed), or the database cannot be used.";

pub(super) const RESUME_HELP: &str = "\
Examples:
  openclaw-controller resume --board Website
  openclaw-controller resume --all

Exit codes: 0 going on, or going on already; 2 a board or gateway is not known (nothing was changed), or the database cannot
be used.";

pub(super) const COMPLETIONS_HELP: &str = "\
Examples:
  openclaw-controller completions bash > /etc/bash_completion.d/openclaw-controller
  openclaw-controller completions zsh > ~/.zfunc/_openclaw-controller
  openclaw-controller completions fish > ~/.config/fish/completions/openclaw-controller.fish

Exit codes: 0 printed; 2 the shell is not known.";

pub(super) const MAN_HELP: &str = "\
Examples:
  openclaw-controller man | man -l -                       read it
  openclaw-controller man get | man -l -                   the page of one command
  openclaw-controller man --dir /usr/local/share/man/man1  install all pages

Exit codes: 0 written; 2 there is no such command, or the directory cannot be written to.";

#[cfg(feature = "sim")]
pub(super) const DEMO_HELP: &str = "\
Examples:
  openclaw-controller demo                                 on a simulated gateway, at once
  openclaw-controller demo --gateway 2026.9.6              on a real OpenClaw, installed first

Exit codes: 0 ended by Ctrl-C, which ends everything that was started and removes it; 2 a part could not be started.";

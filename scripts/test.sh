#!/usr/bin/env bash
# Runs a tier of the tests: unit, fast, all, root, or here (all that can run here); or a group: firecracker,
# tests of VMs, the same as in the tiers, on a real Firecracker; restore, those of snapshots and clones.
#
# A test's tier is in its name: slow_* takes minutes, root_* needs root, vm_*
# (also slow_vm_*, root_vm_*) boots VMs, any other needs neither. A test that
# finds that it cannot run here appends `skipped: NAME: REASON` to the file
# $FCVM_TEST_SKIPS, and passes.
#
# FILTER=name: only tests with that in their names. STREAM=1: output as it comes.
# Ends with `N passed, N failed, N skipped` and the runner's status.
set -euo pipefail
cd "$(dirname "$0")/.."

tier=$1
if [[ $tier == here ]]; then
    if [[ $EUID == 0 ]]; then tier=root; else tier=all; fi
fi
# The prefixes of the tests that are not in the tier.
case $tier in
    unit) left_out=(slow root vm) ;;
    fast) left_out=(slow root) ;;
    all) left_out=(root) ;;
    root | firecracker | restore) left_out=() ;;
    *) echo "error: no tier \`$tier\`: unit, fast, all, root, here, firecracker or restore" >&2; exit 2 ;;
esac

# What a VM on Firecracker is to show. The others test what is the same whatever runs the VM, or QEMU.
firecracker_group=(
    vm_streams_are_apart_and_the_status_is_the_containers
    vm_input_is_forwarded_with_its_end
    vm_a_detached_container_leaves_its_status_and_log
    vm_stop_asks_and_then_kills
    vm_kill_sends_any_signal_also_to_the_foreground
    vm_a_command_runs_as_podman_would_run_it
    vm_the_machine_itself_is_reached
    vm_a_signal_during_the_boot_ends_it
    vm_what_a_killed_fcvm_left_is_removed_by_the_next_command
    vm_a_host_that_reconnects_finds_the_guest_again
    vm_guest_panic
    vm_metadata_is_served_to_who_has_a_token
    vm_a_map_is_the_hosts_own_directory
    vm_clones_go_on_as_others_and_the_source_as_itself
    vm_timers_fire_when_they_are_due
    vm_clones_draw_other_random_numbers
    vm_what_is_written_meanwhile_is_whole_in_a_clone
    vm_generations_go_on_from_one_another
    vm_a_fork_goes_on_and_leaves_no_snapshot
    root_vm_connections_end_and_new_ones_are_made
    faults::vm_clones_end_with_who_serves_them
    faults::vm_a_killed_owner_leaves_no_half_of_a_snapshot
    volumes::vm_what_was_open_is_open_in_clones
    input::vm_a_clone_has_our_terminal
    input::vm_input_goes_on_while_and_after_a_snapshot_is_made
    input::vm_a_clone_is_given_our_input
)
firecracker=${FCVM_FIRECRACKER:-$(command -v firecracker || true)}
if [[ $tier == firecracker ]]; then
    if [[ -z $firecracker ]]; then
        echo "skipped: the group firecracker: no Firecracker: set FCVM_FIRECRACKER or PATH"
        echo
        echo "0 passed, 0 failed, ${#firecracker_group[@]} skipped"
        exit 0
    fi
    export FCVM_TEST_HYPERVISOR=firecracker FCVM_FIRECRACKER=$firecracker
    version=$("$firecracker" --version | sed -n '1p')
fi

# Tests of crashes let fcvm die at chosen places.
features=(--features fcvm/failpoints)

scripts/deps.sh test
if [[ $tier != unit ]]; then
    scripts/build.sh agent
    # With them, fcvm itself, as they run it.
    cargo test --release --locked --workspace "${features[@]}" --no-run
    # Of the tests' own, shared by them all. Without it, tests with VMs skip and say why.
    FCVM_TEST_ASSETS=$(realpath -m "${FCVM_TEST_ASSETS:-${CARGO_TARGET_DIR:-target}/test-assets}")
    export FCVM_TEST_ASSETS
    scripts/fcvm.sh --data-dir "$FCVM_TEST_ASSETS" setup || true
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export FCVM_TEST_SKIPS=$work/skips
touch "$FCVM_TEST_SKIPS"
color=never
if [[ -t 1 ]]; then color=always; fi

# pattern PREFIX...: matches the full names of tests whose own name begins so.
pattern() {
    local IFS='|'
    echo "(^|::)($*)_[a-z0-9_]*\$"
}

# sum REGEX: adds up the numbers in the log that the regular expression captures.
sum() {
    sed -e 's/\x1b\[[0-9;]*m//g' "$work/log" | { grep -oP "$1" || true; } | awk '{ sum += $1 } END { print sum + 0 }'
}

status=0
if cargo nextest --version > /dev/null 2>&1; then
    list=(cargo nextest list --release --locked --workspace "${features[@]}" --message-format oneline)
    run=(cargo nextest run --release --locked --workspace "${features[@]}" --color "$color" --no-fail-fast)
    if [[ ${#left_out[@]} != 0 ]]; then
        run+=(-E "not test(/$(pattern "${left_out[@]}")/)")
    fi
    if [[ $tier == firecracker ]]; then
        named=$(printf ' | test(=%s)' "${firecracker_group[@]}")
        run+=(--profile firecracker -E "binary(firecracker_api) | binary(firecracker)$named")
    fi
    if [[ $tier == restore ]]; then run+=(-E "binary(restore) | binary(snapshots)"); fi
    if [[ -n ${STREAM:-} ]]; then run+=(--no-capture); fi
    if [[ -n ${FILTER:-} ]]; then run+=("$FILTER"); fi
    "${run[@]}" 2>&1 | tee "$work/log" || status=${PIPESTATUS[0]}
    if [[ ${#left_out[@]} != 0 ]]; then
        # `BINARY NAME`
        "${list[@]}" ${FILTER:+"$FILTER"} 2> /dev/null | awk '{ print $NF }' > "$work/names" || true
    fi
    # Not what is told once more of each failed test, which has its own figures.
    sed -i -n '/^ *\(\x1b\[[0-9;]*m\)* *Summary/p' "$work/log"
    passed=$(sum '[0-9]+(?= passed)')
    failed=$(($(sum '[0-9]+(?= failed)') + $(sum '[0-9]+(?= timed out)') + $(sum '[0-9]+(?= exec failed)')))
else
    targets=(--lib --bins --tests)
    if [[ $tier == restore ]]; then targets=(--test restore --test snapshots); fi
    test=(cargo test --release --locked --workspace "${features[@]}" --no-fail-fast "${targets[@]}")
    cargo test --release --locked --workspace "${features[@]}" "${targets[@]}" --no-run
    "${test[@]}" -- --list --format terse 2> /dev/null | sed -n 's/: test$//p' > "$work/names"
    if [[ -n ${FILTER:-} ]]; then
        grep -F -- "$FILTER" "$work/names" > "$work/filtered" || true
        mv "$work/filtered" "$work/names"
    fi
    if [[ $tier == firecracker ]]; then
        printf '%s\n' "${firecracker_group[@]}" | grep -Fx -f - "$work/names" > "$work/filtered" || true
        mv "$work/filtered" "$work/names"
    fi
    selected=()
    while read -r name; do
        if [[ ${#left_out[@]} == 0 ]] || ! grep -qE "$(pattern "${left_out[@]}")" <<< "$name"; then
            selected+=("$name")
        fi
    done < "$work/names"
    if [[ ${#selected[@]} == 0 ]]; then
        echo "error: no tests to run" >&2
        exit 4
    fi
    arguments=(--exact "${selected[@]}" --color "$color")
    if [[ -n ${STREAM:-} ]]; then arguments+=(--nocapture --test-threads 1); fi
    "${test[@]}" --color "$color" -- "${arguments[@]}" 2>&1 | tee "$work/log" || status=${PIPESTATUS[0]}
    passed=$(sum '[0-9]+(?= passed;)')
    failed=$(sum '[0-9]+(?= failed;)')
fi

skipped=0
if [[ -s $FCVM_TEST_SKIPS ]]; then
    skipped=$(awk '{ print $2 }' "$FCVM_TEST_SKIPS" | sort -u | wc -l)
    echo
    echo "skipped here:"
    sort -u "$FCVM_TEST_SKIPS" | sed 's/^skipped: /  /'
fi
for prefix in "${left_out[@]}"; do
    count=$(grep -cE "$(pattern "$prefix")" "$work/names" || true)
    if [[ $count != 0 ]]; then
        case $prefix in
            slow) why="take minutes: make test-all" ;;
            root) why="need root: make test-root as root" ;;
            vm) why="boot VMs: make test-fast" ;;
        esac
        echo "left out: $count tests ${prefix}_*, which $why"
    fi
done
if [[ $1 == here && -z ${FILTER:-} ]]; then
    if [[ -n $firecracker ]]; then
        echo
        echo "== the group firecracker"
        scripts/test.sh firecracker || status=$?
    else
        echo "left out: the group firecracker: no Firecracker in FCVM_FIRECRACKER or PATH: make test-firecracker"
    fi
fi
if [[ $tier == firecracker ]]; then
    echo
    echo "$version at $firecracker, $(uname -m), $SECONDS s"
    echo "not on it, as they are the same whatever runs the VM or take hours there: all other tests of VMs"
fi
echo
echo "$((passed > skipped ? passed - skipped : 0)) passed, $failed failed, $skipped skipped"
exit "$status"

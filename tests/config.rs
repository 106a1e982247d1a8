//! What an image's configuration says, as its container finds it.

use fcvm_testkit::{Compression, Entry, Format, Image, Layer, Registry, TestEnv};
use serde_json::{Value, json};

fn vm() -> Option<TestEnv> {
    TestEnv::set_up(env!("CARGO_BIN_EXE_fcvm"))
}

fn layer() -> Layer {
    Layer::new()
        .busybox()
        .with(
            Entry::file("etc/passwd", "root:x:0:0::/root:/bin/sh\nwww-data:x:33:33::/var/www:/bin/sh\n")
                .mode(0o644),
        )
        .with(Entry::file("etc/group", "root:x:0:\nwww-data:x:33:\nusers:x:100:www-data\n").mode(0o644))
        .with(Entry::directory("data").owner(33, 33).mode(0o750))
        .with(Entry::file("data/seed", "seed").owner(33, 100).mode(0o640))
        .with(Entry::directory("data/deep"))
        .with(Entry::symlink("data/deep/link", "../seed"))
}

/// Writes an image with that configuration; how to run it.
fn source(env: &TestEnv, name: &str, config: Value) -> String {
    let layout = env.root().join(name);
    Image::new().layer(&layer(), Compression::Gzip).config(config).write_layout(&layout);
    format!("oci:{}", layout.display())
}

#[test]
fn vm_users_and_groups_are_the_images() {
    let Some(env) = vm() else { return };
    let image = source(&env, "image", json!({ "User": "www-data", "Cmd": ["id"], "Env": ["PATH=/bin"] }));
    env.run(&[&image])
        .run()
        .assert_stdout("uid=33(www-data) gid=33(www-data) groups=33(www-data),100(users)");
    env.run(&["-u", "1000:users", &image])
        .run()
        .assert_stdout("uid=1000(1000) gid=100(users) groups=100(users)");
    env.run(&["-u", "4242", &image]).run().assert_stdout("uid=4242(4242) gid=0(root) groups=0(root)");
    for user in ["nobody-here", "0:no-group-here"] {
        let output = env.run(&["-u", user, &image]).run();
        output.assert_code(126);
        let name = user.rsplit(':').next().unwrap();
        assert!(output.stderr.contains(name) && output.stdout.is_empty(), "{}", output.stderr);
    }
}

/// Everything else that a configuration can say, each with something to be told by.
fn rich() -> Value {
    json!({
        "Entrypoint": ["sh", "-c"],
        "Cmd": ["echo from the image"],
        "Env": ["PATH=/bin", "ONE=image", "TWO=image", "EMPTY="],
        "WorkingDir": "/made/on/start",
        "Volumes": { "/data": {}, "/nowhere/yet": {} },
        "Labels": { "LABEL-5b2e": "VALUE-d81c" },
        "StopSignal": "SIGUSR2",
        "ExposedPorts": { "80/tcp": {} },
        "OnBuild": ["RUN false"],
        "Shell": ["/bin/ash", "-c"],
        "Healthcheck": { "Test": ["CMD-SHELL", "touch /checked"], "Interval": 1_000_000_000_u64, "Retries": 2 },
    })
}

#[test]
fn vm_all_that_a_configuration_says_holds() {
    let Some(env) = vm() else { return };
    let image = source(&env, "image", rich());
    env.run(&[&image]).run().assert_stdout("from the image");
    let script = "set -e; pwd; echo $ONE-$TWO-${EMPTY-unset}-$THREE; \
                  echo more > /data/more; echo new > /nowhere/yet/new; \
                  cat /data/seed /data/deep/link /data/more /nowhere/yet/new; \
                  stat -c '%a %u:%g' /data /data/seed; \
                  grep -c -E ' (/data|/nowhere/yet) ' /proc/mounts";
    let output = env.run(&["-e", "TWO=option", "-e", "THREE=3", &image, script]).run();
    output.assert_stdout("/made/on/start\nimage-option--3\nseedseedmore\nnew\n750 33:33\n640 33:100\n2");
    assert_eq!(output.stderr, "");
}

#[test]
fn vm_entry_points_and_commands_are_combined_as_podman_does() {
    let Some(env) = vm() else { return };
    let image = source(&env, "image", rich());
    env.run(&["--entrypoint", "", &image, "echo", "bare"]).run().assert_stdout("bare");
    env.run(&["--entrypoint", "echo", &image]).run().assert_stdout("");
    let commands = source(&env, "commands", json!({ "Cmd": ["echo", "command"], "Env": ["PATH=/bin"] }));
    env.run(&[&commands]).run().assert_stdout("command");
    let nothing = source(&env, "nothing", json!({ "Env": ["PATH=/bin"] }));
    let output = env.run(&[&nothing]).run();
    output.assert_code(125);
    assert!(output.stderr.contains("no command or entrypoint provided"), "{}", output.stderr);
}

#[test]
fn vm_what_podman_knows_of_the_container() {
    let Some(env) = vm() else { return };
    let image = source(&env, "image", rich());
    // With all devices, a container finds what Podman knows of it on the VM's own disk.
    let script = "set -e; mkdir /disk; mount -t ext4 $(for disk in /sys/block/vd*; do \
                  grep -q scratch $disk/serial && echo /dev/${disk##*/}; done) /disk; \
                  for what in '\"LABEL-5b2e\":\"VALUE-d81c\"' '\"stopSignal\":12'; do \
                  grep -rqs \"$what\" /disk && echo \"$what\"; done";
    env.run(&["--privileged", &image, script])
        .run()
        .assert_stdout("\"LABEL-5b2e\":\"VALUE-d81c\"\n\"stopSignal\":12");
}

/// Docker's own format is where Podman looks for health checks.
#[test]
fn vm_a_health_check_is_made_unless_it_is_not_wanted() {
    let Some(env) = vm() else { return };
    let Some(registry) = Registry::plain(env.root()) else { return };
    let image = Image::new().layer(&layer(), Compression::Gzip).config(rich());
    registry.push(&image, "checked:1", Format::Docker);
    let name = registry.name("checked:1");
    let script = "sleep 2; test ! -e /checked && echo well";
    env.run(&["--tls-verify=false", "--no-healthcheck", &name, script]).run().assert_stdout("well");
    // Podman's own words would be among those of the pull.
    let checked = env.run(&[&name, "until test -e /checked; do sleep 0.1; done"]).run();
    assert_eq!(checked.assert_code(0).stderr, "");
}

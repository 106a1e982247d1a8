//! The OCI runtime's description of a further process in a container: pure.
//!
//! `process` of <https://github.com/opencontainers/runtime-spec/blob/v1.2.0/config.md#process>, made of
//! the container's own as `podman exec` makes it.

use fcvm_proto::ExecRequest;
use serde_json::{Map, Value, json};

use super::users::User;

/// All capabilities of Linux 6, in the kernel's order.
const CAPABILITIES: &[&str] = &[
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// The process of a request in a container whose own is `container`; `user` where it is to be another.
///
/// # Errors
/// Where the container's is no process.
pub(super) fn describe(
    container: &Value,
    request: &ExecRequest,
    user: Option<&User>,
) -> anyhow::Result<Value> {
    let mut process =
        container.as_object().cloned().ok_or_else(|| anyhow::anyhow!("the container has no process"))?;
    let terminal = request.terminal;
    process.insert("args".into(), json!(request.command));
    process.insert("terminal".into(), json!(terminal.is_some()));
    process.remove("consoleSize");
    if let Some(size) = terminal {
        process.insert("consoleSize".into(), json!({ "height": size.rows, "width": size.columns }));
    }
    if let Some(workdir) = &request.workdir {
        process.insert("cwd".into(), json!(workdir));
    }
    let home = user.map(|user| user.home.as_str());
    process.insert("env".into(), json!(environment(&process, request, home)));
    let own = process.get("user").and_then(|user| user.get("uid")).and_then(Value::as_u64).unwrap_or(0);
    if let Some(user) = user {
        let groups = &user.groups;
        let user = json!({ "uid": user.uid, "gid": user.gid, "additionalGids": groups });
        process.insert("user".into(), user);
    }
    let uid = user.map_or(own, |user| user.uid.into());
    process.insert("capabilities".into(), capabilities(&process, request.privileged, uid, user.is_some()));
    if request.privileged {
        process.insert("noNewPrivileges".into(), json!(false));
    }
    Ok(Value::Object(process))
}

/// Drops the home directory that Podman gave the container's own user, `home`: another user has another.
/// One that somebody asked for stays.
pub(super) fn forget_home(container: &mut Value, home: &str) {
    let given = format!("HOME={home}");
    if let Some(env) = container.get_mut("env").and_then(Value::as_array_mut) {
        env.retain(|variable| variable.as_str() != Some(&given));
    }
}

/// The container's environment with the request's: of one name, the last counts.
fn environment(process: &Map<String, Value>, request: &ExecRequest, home: Option<&str>) -> Vec<String> {
    let own = process.get("env").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let mut all: Vec<(String, String)> = own
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let mut set =
        |name: &str, value: &str, replace: bool| match all.iter_mut().find(|(other, _)| other == name) {
            Some((_, old)) if replace => value.clone_into(old),
            Some(_) => {}
            None => all.push((name.to_owned(), value.to_owned())),
        };
    for (name, value) in &request.env {
        set(name, value, true);
    }
    if request.terminal.is_some() {
        set("TERM", "xterm", false);
    }
    if let Some(home) = home {
        set("HOME", home, false);
    }
    all.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
}

/// Root has what the container is bounded by; a user who was asked for has none, as they would be
/// after `su`; the container's own user keeps what the container gave it.
fn capabilities(process: &Map<String, Value>, privileged: bool, uid: u64, asked: bool) -> Value {
    let own = process.get("capabilities").cloned().unwrap_or_else(|| json!({}));
    let bounding =
        if privileged { json!(CAPABILITIES) } else { own.get("bounding").cloned().unwrap_or(json!([])) };
    if uid == 0 {
        return json!({ "bounding": bounding, "effective": bounding, "permitted": bounding });
    }
    let mut capabilities = json!({ "bounding": bounding });
    if !asked {
        for set in ["effective", "permitted", "inheritable", "ambient"] {
            if let Some(own) = own.get(set) {
                capabilities[set] = own.clone();
            }
        }
    }
    capabilities
}

#[cfg(test)]
mod tests {
    use fcvm_proto::{ExecTarget, TerminalSize};

    use super::*;

    fn request() -> ExecRequest {
        ExecRequest {
            id: [0; 16],
            target: ExecTarget::Container,
            command: vec!["sh".into(), "-c".into(), "x".into()],
            env: Vec::new(),
            workdir: None,
            user: None,
            privileged: false,
            terminal: None,
            interactive: false,
            detach: false,
        }
    }

    fn container() -> Value {
        json!({
            "terminal": true,
            "consoleSize": { "height": 1, "width": 1 },
            "user": { "uid": 0, "gid": 0, "additionalGids": [1] },
            "args": ["init"],
            "env": ["PATH=/bin", "A=1"],
            "cwd": "/srv",
            "capabilities": { "bounding": ["CAP_CHOWN"], "effective": [], "permitted": [] },
            "noNewPrivileges": true,
        })
    }

    #[test]
    fn a_home_that_was_asked_for_stays() {
        let mut process = json!({ "env": ["HOME=/root", "A=1"] });
        forget_home(&mut process, "/srv");
        assert_eq!(process["env"], json!(["HOME=/root", "A=1"]));
        forget_home(&mut process, "/root");
        assert_eq!(process["env"], json!(["A=1"]));
        forget_home(&mut Value::Null, "/");
    }

    #[test]
    fn it_is_the_containers_process_but_for_what_was_asked() {
        let process = describe(&container(), &request(), None).unwrap();
        assert_eq!(process["args"], json!(["sh", "-c", "x"]));
        assert_eq!(process["cwd"], "/srv");
        assert_eq!(process["env"], json!(["PATH=/bin", "A=1"]));
        assert_eq!(process["terminal"], false);
        assert_eq!(process["capabilities"]["effective"], json!(["CAP_CHOWN"]));
        assert_eq!(process["user"]["additionalGids"], json!([1]));
        assert_eq!(process["noNewPrivileges"], true);

        let asked = ExecRequest {
            env: vec![("A".into(), "2".into()), ("B".into(), "=".into())],
            workdir: Some("/tmp".into()),
            terminal: Some(TerminalSize { rows: 24, columns: 80 }),
            ..request()
        };
        let user = User { uid: 33, gid: 34, groups: vec![40], home: "/var/www".into() };
        let process = describe(&container(), &asked, Some(&user)).unwrap();
        assert_eq!(process["cwd"], "/tmp");
        assert_eq!(process["env"], json!(["PATH=/bin", "A=2", "B==", "TERM=xterm", "HOME=/var/www"]));
        assert_eq!(process["consoleSize"], json!({ "height": 24, "width": 80 }));
        assert_eq!(process["user"], json!({ "uid": 33, "gid": 34, "additionalGids": [40] }));
        assert_eq!(process["capabilities"], json!({ "bounding": ["CAP_CHOWN"] }));

        let process = describe(&container(), &ExecRequest { privileged: true, ..request() }, None).unwrap();
        assert_eq!(process["capabilities"]["effective"].as_array().unwrap().len(), CAPABILITIES.len());
        assert_eq!(process["noNewPrivileges"], false);
        assert!(describe(&Value::Null, &request(), None).is_err());
    }
}

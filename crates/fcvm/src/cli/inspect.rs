//! `fcvm inspect`.

/// Print all that is known of VMs, as a JSON array.
///
/// With --format, a line for each. A path gives one field, texts as they are and all else as JSON. A
/// template has fields within braces: {{.State.Status}}, {{json .State}} or
/// {{index .Config.Labels "name"}}, by the names that Podman and Docker have for them or by those of
/// the JSON.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Names, ids or beginnings of ids
    #[arg(required = true, value_name = "VM")]
    pub vms: Vec<String>,
    /// Print a field of each, such as .exit_code, or a template, such as '{{.Name}} {{.State.Status}}'
    #[arg(short, long, value_name = "PATH|TEMPLATE")]
    pub format: Option<String>,
}

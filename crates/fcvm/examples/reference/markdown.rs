//! The reference as Markdown, one file.

use std::collections::BTreeMap;

use clap::{Arg, Command};

/// The whole reference of a command line.
pub(crate) fn reference(command: Command, codes: &[(&str, &str)]) -> String {
    let mut command = command.disable_help_subcommand(true);
    command.build();
    let mut text = Text::default();
    text.paragraph("# Command line");
    text.paragraph("<!-- Made by `make docs` from the program's own help. Do not edit. -->");
    text.paragraph(
        "Commands and their options, as `--help` tells them; how to use them is in the \
         [guide](../guide/running.md).",
    );
    let commands = flatten(&command);
    text.table(
        ["command", ""],
        commands[1..].iter().filter(|one| !one.has_subcommands()).map(|one| {
            let name = title(one);
            [format!("[`{name}`](#{})", name.replace(' ', "-")), summary(one)]
        }),
    );
    text.paragraph("## Options of every command");
    text.arguments(command.get_arguments().filter(|arg| arg.is_global_set()));
    text.paragraph("## Exit codes");
    text.table(["code", "meaning"], codes.iter().map(|(code, meaning)| [(*code).into(), cell(meaning)]));
    text.paragraph("## Environment variables");
    text.paragraph(
        "An option on the command line wins over its variable. All variables: [environment](environment.md).",
    );
    text.table(["variable", "option"], variables(&commands));
    for one in commands.iter().skip(1).filter(|one| !one.has_subcommands()) {
        text.command(one);
    }
    text.0
}

/// A command and all below it, in the order of the help.
fn flatten(command: &Command) -> Vec<&Command> {
    let below = command.get_subcommands().filter(|below| !below.is_hide_set());
    [command].into_iter().chain(below.flat_map(flatten)).collect()
}

/// `fcvm podman run`
fn title(command: &Command) -> &str {
    command.get_bin_name().unwrap_or(command.get_name())
}

fn summary(command: &Command) -> String {
    cell(&command.get_about().map(ToString::to_string).unwrap_or_default())
}

/// Variables and the options that they stand for.
fn variables<'a>(commands: &[&'a Command]) -> impl Iterator<Item = [String; 2]> + use<'a> {
    let mut all = BTreeMap::new();
    for arg in commands.iter().flat_map(|command| command.get_arguments()) {
        if let (Some(variable), Some(long)) = (arg.get_env(), arg.get_long()) {
            all.insert(variable.to_string_lossy().into_owned(), long);
        }
    }
    all.into_iter().map(|(variable, long)| [format!("`{variable}`"), format!("`--{long}`")])
}

/// Text in a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ").replace('*', "\\*").replace('<', "&lt;")
}

/// What is written so far.
#[derive(Default)]
struct Text(String);

impl Text {
    fn paragraph(&mut self, text: &str) {
        if !self.0.is_empty() {
            self.0.push('\n');
        }
        self.0.push_str(text);
        self.0.push('\n');
    }

    fn table<const N: usize>(&mut self, heading: [&str; N], rows: impl Iterator<Item = [String; N]>) {
        let lines = [format!("| {} |", heading.join(" | ")), format!("|{}", "---|".repeat(N))];
        let rows = rows.map(|row| format!("| {} |", row.join(" | ")));
        self.paragraph(&lines.into_iter().chain(rows).collect::<Vec<_>>().join("\n"));
    }

    fn command(&mut self, command: &Command) {
        self.paragraph(&format!("## {}", title(command)));
        let usage = command.clone().render_usage().to_string();
        self.paragraph(&format!("```text\n{}\n```", usage.trim_start_matches("Usage: ")));
        let about = command.get_long_about().or(command.get_about());
        self.paragraph(&about.map(ToString::to_string).unwrap_or_default());
        let aliases: Vec<_> = command.get_visible_aliases().map(|alias| format!("`{alias}`")).collect();
        if !aliases.is_empty() {
            self.paragraph(&format!("Also: {}", aliases.join(", ")));
        }
        let own = |arg: &&Arg| {
            !arg.is_global_set() && !arg.is_hide_set() && !matches!(arg.get_id().as_str(), "help" | "version")
        };
        let mut by_heading: Vec<(Option<&str>, Vec<&Arg>)> = Vec::new();
        let options = command.get_arguments().filter(|arg| !arg.is_positional());
        for arg in command.get_positionals().chain(options).filter(own) {
            let heading = arg.get_help_heading();
            match by_heading.iter_mut().find(|(other, _)| *other == heading) {
                Some((_, args)) => args.push(arg),
                None => by_heading.push((heading, vec![arg])),
            }
        }
        for (heading, args) in by_heading {
            if let Some(heading) = heading {
                self.paragraph(&format!("### {heading}"));
            }
            self.arguments(args.into_iter());
        }
    }

    fn arguments<'a>(&mut self, args: impl Iterator<Item = &'a Arg>) {
        self.table(
            ["argument", "meaning"],
            args.map(|arg| [format!("`{}`", cell_code(&form(arg))), meaning(arg)]),
        );
    }
}

/// In code only the column's end must be told apart.
fn cell_code(text: &str) -> String {
    text.replace('|', "\\|")
}

/// `-e, --env NAME[=VALUE]`
fn form(arg: &Arg) -> String {
    let names: Vec<_> = arg.get_value_names().unwrap_or_default().iter().map(ToString::to_string).collect();
    let values = names.join(" ");
    let repeated = arg.get_num_args().is_some_and(|count| count.max_values() > 1);
    if arg.is_positional() {
        return if repeated { format!("{values}...") } else { values };
    }
    let short = arg.get_short().map(|short| format!("-{short}"));
    let long = arg.get_long().map(|long| format!("--{long}"));
    let names = short.into_iter().chain(long).collect::<Vec<_>>().join(", ");
    match arg.get_num_args() {
        Some(count) if !count.takes_values() => names,
        Some(count) if count.min_values() == 0 => format!("{names}[={values}]"),
        _ => format!("{names} {values}"),
    }
}

/// The help, the values there are, the default and the variable.
fn meaning(arg: &Arg) -> String {
    let help = arg.get_long_help().or(arg.get_help()).map(ToString::to_string).unwrap_or_default();
    let mut parts = vec![cell(&help)];
    if arg.get_num_args().is_some_and(|count| count.takes_values()) {
        let values = arg.get_possible_values();
        let values: Vec<_> = values.iter().filter(|value| !value.is_hide_set()).collect();
        if !values.is_empty() {
            let values = values.iter().map(|value| match value.get_help() {
                Some(help) => {
                    format!("`{}` ({})", value.get_name(), cell(help.to_string().trim_end_matches('.')))
                }
                None => format!("`{}`", value.get_name()),
            });
            parts.push(format!("Values: {}", values.collect::<Vec<_>>().join(", ")));
        }
        let defaults = arg.get_default_values().iter().map(|value| format!("`{}`", value.to_string_lossy()));
        let defaults = defaults.collect::<Vec<_>>().join(" ");
        if !defaults.is_empty() {
            parts.push(format!("Default: {defaults}"));
        }
    }
    if let Some(variable) = arg.get_env() {
        parts.push(format!("Variable: `{}`", variable.to_string_lossy()));
    }
    parts.join(". ")
}

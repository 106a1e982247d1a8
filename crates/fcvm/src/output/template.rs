//! `--format`: the part of Go's templates that users of Podman and Docker write for `inspect`.
//!
//! `{{.a.b}}`, `{{json .a.b}}`, `{{index .a.b "key"}}` and text around them; `{{-` and `-}}` trim.
//! Anything else is refused: half of a language that looks like the whole one helps nobody.

use serde_json::Value;

use super::sanitize;

/// A template that was understood.
#[derive(Debug, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Field { action: Action, path: Vec<String>, column: usize },
}

#[derive(Debug, PartialEq, Eq)]
enum Action {
    Print,
    Json,
    Index(Vec<String>),
}

/// A template cannot be understood, or asks for what is not there.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the messages say what the fields are")]
pub enum TemplateError {
    #[error("the `{{{{` in column {column} of the format is not closed")]
    Open { column: usize },
    #[error("`{action}` in column {column} of the format is not understood")]
    Unknown { action: String, column: usize },
    #[error("there is no `{path}`, which column {column} of the format asks for")]
    NoField { path: String, column: usize },
}

impl TemplateError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoField { .. } => "without --format, or with {{json .}}, all fields are shown".into(),
            _ => r#"a format is text with {{.State.Status}}, {{json .State}} or {{index .Config.Labels "name"}}"#
                .into(),
        })
    }
}

impl Template {
    /// Whether a format is a template and no plain path.
    #[must_use]
    pub fn is_one(format: &str) -> bool {
        format.contains("{{")
    }

    /// # Errors
    /// Where it is none.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let mut parts = Vec::new();
        let (mut rest, mut trim) = (text, false);
        while let Some(begin) = rest.find("{{") {
            let column = text[..text.len() - rest.len() + begin].chars().count() + 1;
            let (before, action) = (&rest[..begin], &rest[begin + 2..]);
            let end = end(action).ok_or(TemplateError::Open { column })?;
            let inner = &action[..end];
            let (inner, trims_before) = match inner.strip_prefix('-') {
                Some(inner) if inner.starts_with(char::is_whitespace) => (inner, true),
                _ => (inner, false),
            };
            let (inner, trims_after) = match inner.strip_suffix('-') {
                Some(inner) if inner.ends_with(char::is_whitespace) => (inner, true),
                _ => (inner, false),
            };
            push(&mut parts, before, trim, trims_before);
            parts.push(field(inner.trim(), column).ok_or_else(|| TemplateError::Unknown {
                action: format!("{{{{{}}}}}", sanitize(&action[..end])),
                column,
            })?);
            (rest, trim) = (&action[end + 2..], trims_after);
        }
        push(&mut parts, rest, trim, false);
        Ok(Self { parts })
    }

    /// The text with the fields of an object; what the first of several does not have, the next may.
    ///
    /// # Errors
    /// Where none has a field.
    pub fn render(&self, objects: &[&Value]) -> Result<String, TemplateError> {
        let mut out = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Field { action, path, column } => {
                    let no_field =
                        || TemplateError::NoField { path: format!(".{}", path.join(".")), column: *column };
                    let found = objects.iter().find_map(|object| look(object, path)).ok_or_else(no_field)?;
                    match action {
                        Action::Print => out.push_str(&sanitize(&plain(found))),
                        Action::Json => out.push_str(&found.to_string()),
                        Action::Index(keys) => out.push_str(&sanitize(&index(found, keys))),
                    }
                }
            }
        }
        Ok(out)
    }
}

/// Where the `}}` of an action is: not within a string.
fn end(action: &str) -> Option<usize> {
    let mut quote = None;
    let mut escaped = false;
    for (at, character) in action.char_indices() {
        match quote {
            Some('"') if escaped => escaped = false,
            Some('"') if character == '\\' => escaped = true,
            Some(open) if character == open => quote = None,
            Some(_) => {}
            None if matches!(character, '"' | '`') => quote = Some(character),
            None if action[at..].starts_with("}}") => return Some(at),
            None => {}
        }
    }
    None
}

fn push(parts: &mut Vec<Part>, text: &str, trim_start: bool, trim_end: bool) {
    let text = if trim_start { text.trim_start() } else { text };
    let text = if trim_end { text.trim_end() } else { text };
    if !text.is_empty() {
        parts.push(Part::Text(text.to_owned()));
    }
}

/// What stands within the braces.
fn field(action: &str, column: usize) -> Option<Part> {
    let (word, rest) = action.split_once(char::is_whitespace).unwrap_or((action, ""));
    let (action, path) = match word {
        "json" => (Action::Json, rest.trim()),
        "index" => {
            let (path, keys) = rest.trim().split_once(char::is_whitespace)?;
            (Action::Index(literals(keys.trim())?), path)
        }
        _ => (Action::Print, action),
    };
    Some(Part::Field { action, path: names(path)?, column })
}

/// The names of `.a.b`; none for `.` alone.
fn names(path: &str) -> Option<Vec<String>> {
    let path = path.strip_prefix('.')?;
    if path.is_empty() {
        return Some(Vec::new());
    }
    let name = |name: &str| {
        let allowed = |c: char| c.is_alphanumeric() || c == '_';
        (!name.is_empty() && name.chars().all(allowed)).then(|| name.to_owned())
    };
    path.split('.').map(name).collect()
}

/// Strings in quotes, or numbers, with spaces between them; one at least.
fn literals(mut text: &str) -> Option<Vec<String>> {
    let mut keys = Vec::new();
    while !text.is_empty() {
        let mut rest = text.char_indices().skip(1);
        let (key, length) = match text.chars().next()? {
            '`' => {
                let (at, _) = rest.find(|(_, character)| *character == '`')?;
                (text[1..at].to_owned(), at + 1)
            }
            '"' => {
                let mut escaped = false;
                let (at, _) = rest.find(|(_, character)| {
                    let closes = *character == '"' && !escaped;
                    escaped = *character == '\\' && !escaped;
                    closes
                })?;
                // What JSON and Go have in common of escapes is all that anyone writes.
                (serde_json::from_str(&text[..=at]).ok()?, at + 1)
            }
            _ => {
                let length = text.find(char::is_whitespace).unwrap_or(text.len());
                (text[..length].parse::<usize>().ok()?.to_string(), length)
            }
        };
        keys.push(key);
        text = text[length..].trim_start();
    }
    (!keys.is_empty()).then_some(keys)
}

fn look<'a>(value: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, name| match value {
        Value::Array(values) => values.get(name.parse::<usize>().ok()?),
        value => value.get(name),
    })
}

/// As Go has it, a key that is not there gives nothing.
fn index(value: &Value, keys: &[String]) -> String {
    look(value, keys).map(plain).unwrap_or_default()
}

/// A value as Go prints it: `map[a:b]`, `[a b]`.
fn plain(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(values) => format!("[{}]", values.iter().map(plain).collect::<Vec<_>>().join(" ")),
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by_key(|(name, _)| *name);
            let fields: Vec<_> =
                fields.iter().map(|(name, value)| format!("{name}:{}", plain(value))).collect();
            format!("map[{}]", fields.join(" "))
        }
        value => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn render(template: &str) -> Result<String, TemplateError> {
        let object = json!({
            "State": { "Status": "exited", "ExitCode": 3, "Running": false, "Error": null },
            "Config": { "Labels": { "b": "2", "a.b": "x }} y", "q\"": "quote" }, "Cmd": ["sh", "-c"] },
            "Evil": "a\u{1b}[2Jb",
        });
        Template::parse(template)?.render(&[&object, &json!({ "exit_code": 3 })])
    }

    #[test]
    fn fields_are_put_into_the_text() {
        for (template, text) in [
            ("{{.State.Status}}", "exited"),
            ("{{ .State.ExitCode }} and {{.State.Running}}, {{.State.Error}}", "3 and false, <nil>"),
            ("a\tb {{.exit_code}}}", "a\tb 3}"),
            ("{{json .State.Status}} {{json .Config.Cmd}}", r#""exited" ["sh","-c"]"#),
            ("{{.Config.Cmd}} {{.Config.Cmd.1}}", "[sh -c] -c"),
            ("{{.State}}", "map[Error:<nil> ExitCode:3 Running:false Status:exited]"),
            (r#"{{index .Config.Labels "b"}}|{{index .Config.Labels "none"}}|"#, "2||"),
            (r#"{{index .Config.Labels "a.b"}}"#, "x }} y"),
            (r#"{{index .Config.Labels "q\""}}"#, "quote"),
            ("{{index .Config `Labels` `b`}} {{index .Config.Cmd 0}}", "2 sh"),
            ("x  {{- .exit_code -}}  y", "x3y"),
            ("{{.Evil}}", "a\\u{1b}[2Jb"),
            ("", ""),
        ] {
            assert_eq!(render(template).as_deref(), Ok(text), "{template}");
        }
    }

    #[test]
    fn what_is_not_understood_is_pointed_at() {
        let unknown = |action: &str, column| TemplateError::Unknown { action: action.into(), column };
        for (template, error) in [
            ("é{{.State", TemplateError::Open { column: 2 }),
            ("{{.exit_code}} {{range .x}}", unknown("{{range .x}}", 16)),
            ("{{}}", unknown("{{}}", 1)),
            ("{{State}}", unknown("{{State}}", 1)),
            ("{{.a..b}}", unknown("{{.a..b}}", 1)),
            ("{{.a | json}}", unknown("{{.a | json}}", 1)),
            ("{{json}}", unknown("{{json}}", 1)),
            ("{{index .a}}", unknown("{{index .a}}", 1)),
            ("{{index .a b}}", unknown("{{index .a b}}", 1)),
            (r#"{{index .a "b}}"#, TemplateError::Open { column: 1 }),
            ("{{.State.Nosuch}}", TemplateError::NoField { path: ".State.Nosuch".into(), column: 1 }),
        ] {
            assert_eq!(render(template), Err(error), "{template}");
        }
    }

    proptest! {
        #[test]
        fn no_template_panics(template in r#"[ -~é{}"`\\.]{0,40}"#) {
            drop(render(&template));
        }
    }
}

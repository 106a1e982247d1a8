//! `fcvm login`.

use std::{
    io::{self, Read as _},
    process::ExitCode,
};

use anyhow::Context as _;

use crate::{
    cli::login::Login as Args,
    image::{
        credentials::{Credentials, CredentialsError, Login, Secret},
        registries::{Endpoint, RegistryFiles},
        registry::{self, TlsOptions},
    },
    output::{Printer, ask, ask_secret},
};

/// No password is longer.
const MAX_PASSWORD: u64 = 1 << 20;

/// Runs `fcvm login`.
///
/// # Errors
/// Where the registry does not accept the login, or it cannot be kept.
pub fn run(args: &Args, printer: &Printer) -> anyhow::Result<ExitCode> {
    let credentials = Credentials::of_user(args.authfile.clone());
    let place = &args.registry;
    let known = || credentials.find(place.registry(), place.repository());
    if args.get_login {
        let login = known()?.ok_or_else(|| CredentialsError::NotLoggedIn { key: place.to_string() })?;
        printer.data(login.user().unwrap_or("<token>"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let endpoint = RegistryFiles::of_user().load()?.endpoint_of(place.registry());
    let tls = TlsOptions { verify: args.tls_verify, cert_dir: args.cert_dir.clone() };
    if args.username.is_none()
        && let Some(login) = known()?
    {
        match registry::check_login(&endpoint, &login, &tls) {
            Ok(()) => {
                printer.note(format_args!("already logged in to {place}"));
                return Ok(ExitCode::SUCCESS);
            }
            Err(error) => printer.note(format_args!("the login for {place} is to be replaced: {error}")),
        }
    }
    let login = login(args)?;
    check_and_keep(&credentials, args, &endpoint, &login, &tls)?;
    printer.note(format_args!("logged in to {place}"));
    Ok(ExitCode::SUCCESS)
}

fn check_and_keep(
    credentials: &Credentials,
    args: &Args,
    endpoint: &Endpoint,
    login: &Login,
    tls: &TlsOptions,
) -> anyhow::Result<()> {
    let place = &args.registry;
    registry::check_login(endpoint, login, tls).with_context(|| format!("failed to log in to `{place}`"))?;
    Ok(credentials.store(&place.to_string(), login)?)
}

/// What the user gives, on the command line, on standard input or when asked.
fn login(args: &Args) -> anyhow::Result<Login> {
    let user = match &args.username {
        Some(user) => user.clone(),
        None => ask("Username: ")?,
    };
    let password = match &args.password {
        Some(password) => password.clone(),
        None if args.password_stdin => {
            let mut text = String::new();
            let read = io::stdin().take(MAX_PASSWORD).read_to_string(&mut text);
            read.context("failed to read the password from standard input")?;
            text.trim_end_matches(['\n', '\r']).to_owned()
        }
        None => ask_secret("Password: ")?,
    };
    Ok(Login::Password { user, password: Secret::from(password) })
}

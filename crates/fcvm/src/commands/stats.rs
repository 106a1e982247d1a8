//! `fcvm stats`.

use std::{collections::HashMap, io, process::ExitCode};

use anyhow::Context as _;
use bytesize::ByteSize;
use serde::Serialize;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    task::JoinSet,
    time::{Instant, sleep_until},
};

use crate::{
    cli::stats::Args,
    hypervisor::{self, GuestMemory, Traffic},
    network,
    output::{Live, Printer, table},
    state::{Registry, RuntimeDir, Sample, Status, VmId, VmState},
    storage::DataDir,
    vm::control::ControlError,
};

/// What a VM uses, as `--json` shows it; null is what is not known.
#[derive(Debug, Serialize)]
struct Row {
    id: VmId,
    name: String,
    status: Status,
    cpus: u8,
    /// Of one CPU.
    cpu_percent: Option<f64>,
    cpu_seconds: Option<f64>,
    memory_rss_bytes: Option<u64>,
    memory_pss_bytes: Option<u64>,
    memory_private_bytes: Option<u64>,
    memory_limit_bytes: u64,
    /// By the guest.
    network_received_bytes: Option<u64>,
    network_sent_bytes: Option<u64>,
    disk_read_bytes: Option<u64>,
    disk_written_bytes: Option<u64>,
    /// How often a limit held up the VM's disks.
    disk_throttled_events: Option<u64>,
    threads: Option<u64>,
    /// The guest's own account of its memory, by its balloon.
    guest_memory_total_bytes: Option<u64>,
    guest_memory_free_bytes: Option<u64>,
    guest_memory_available_bytes: Option<u64>,
    guest_memory_cached_bytes: Option<u64>,
    /// What the guest has given back.
    balloon_bytes: Option<u64>,
    /// What it is to give back.
    balloon_target_bytes: Option<u64>,
}

/// Runs `fcvm stats`.
///
/// # Errors
/// Where a VM that is named does not run, or the result cannot be written.
pub fn run(args: &Args, data: &DataDir, printer: &Printer) -> anyhow::Result<ExitCode> {
    let registry = Registry::new(data, RuntimeDir::from_env());
    let mut watched = Watched::new(args, registry)?;
    if args.no_stream {
        let rows = super::block_on(watched.measure())??;
        print(&rows, args, printer)?;
        return Ok(ExitCode::SUCCESS);
    }
    super::block_on(stream(args, &mut watched, printer))?
}

/// Shows one measurement after the other, until a signal, or until all VMs that were named have ended.
async fn stream(args: &Args, watched: &mut Watched, printer: &Printer) -> anyhow::Result<ExitCode> {
    // Before the cursor is hidden: what ends fcvm brings it back.
    let mut ends = Ends::listen().context("failed to listen to signals")?;
    let mut resized = signal(SignalKind::window_change()).context("failed to listen to signals")?;
    let live = if args.json { None } else { Live::on_terminal()? };
    let mut next = Instant::now();
    let mut rows = Vec::new();
    loop {
        tokio::select! {
            () = sleep_until(next) => {
                rows = watched.measure().await?;
                if rows.is_empty() && watched.is_named() {
                    return Ok(ExitCode::SUCCESS);
                }
                next = Instant::now() + args.interval;
            }
            _ = resized.recv(), if live.is_some() => {}
            number = ends.next() => {
                return Ok(ExitCode::from(u8::try_from(128 + number).unwrap_or(crate::exit::FAILED)));
            }
        }
        match &live {
            Some(live) => live.show(&text(&rows))?,
            None if print(&rows, args, printer)? => {}
            None => return Ok(ExitCode::SUCCESS),
        }
    }
}

/// The signals that end a command.
struct Ends([(Signal, SignalKind); 3]);

impl Ends {
    fn listen() -> io::Result<Self> {
        let of = |kind: SignalKind| Ok::<_, io::Error>((signal(kind)?, kind));
        Ok(Self([of(SignalKind::interrupt())?, of(SignalKind::terminate())?, of(SignalKind::hangup())?]))
    }

    async fn next(&mut self) -> i32 {
        let [(first, a), (second, b), (third, c)] = &mut self.0;
        let kind = tokio::select! {
            _ = first.recv() => a,
            _ = second.recv() => b,
            _ = third.recv() => c,
        };
        kind.as_raw_value()
    }
}

/// What a machine tells of itself.
#[derive(Debug, Clone, Copy)]
struct Told {
    memory: Option<GuestMemory>,
    traffic: Option<Traffic>,
}

/// The VMs that are looked at, and what they were at the last time.
struct Watched {
    registry: Registry,
    named: Vec<VmId>,
    all: bool,
    last: HashMap<VmId, Sample>,
}

impl Watched {
    fn new(args: &Args, registry: Registry) -> anyhow::Result<Self> {
        let named = args.vms.iter().map(|name| {
            let vm = registry.find(name)?;
            if vm.is_alive() { Ok(vm.id) } else { Err(ControlError::NotRunning { name: vm.name }.into()) }
        });
        let named = named.collect::<anyhow::Result<_>>()?;
        Ok(Self { registry, named, all: args.all, last: HashMap::new() })
    }

    fn is_named(&self) -> bool {
        !self.named.is_empty()
    }

    async fn measure(&mut self) -> anyhow::Result<Vec<Row>> {
        let mut vms = if self.all { self.registry.list_all()? } else { self.registry.list()? };
        vms.retain(|vm| self.named.is_empty() || self.named.contains(&vm.id));
        let told = self.ask(&vms).await;
        let mut now = HashMap::new();
        let rows = vms.iter().map(|vm| {
            let sample = vm.hypervisor_process.as_ref().filter(|_| vm.is_alive()).and_then(Sample::of);
            now.extend(sample.map(|sample| (vm.id.clone(), sample)));
            Row::new(vm, sample.as_ref(), self.last.get(&vm.id), told.get(&vm.id))
        });
        let rows = rows.collect();
        self.last = now;
        Ok(rows)
    }

    /// What machines tell of themselves. All are asked at once: one that is silent delays no other.
    async fn ask(&self, vms: &[VmState]) -> HashMap<VmId, Told> {
        let mut asked = JoinSet::new();
        for vm in vms.iter().filter(|vm| vm.hypervisor_process.is_some() && vm.is_alive()) {
            let (id, hypervisor) = (vm.id.clone(), vm.hypervisor.clone());
            let sockets = self.registry.runtime_dir(&id);
            asked.spawn(async move {
                let (memory, traffic) = tokio::join!(
                    hypervisor::guest_memory(&hypervisor, &sockets),
                    hypervisor::traffic(&hypervisor, &sockets)
                );
                (id, Told { memory, traffic })
            });
        }
        asked.join_all().await.into_iter().collect()
    }
}

impl Row {
    fn new(vm: &VmState, sample: Option<&Sample>, last: Option<&Sample>, told: Option<&Told>) -> Self {
        let guest = told.and_then(|told| told.memory);
        let traffic = told.and_then(|told| told.traffic);
        let moved = vm.hypervisor_process.as_ref().and_then(|process| network::moved(process.pid));
        let memory = sample.and_then(|sample| sample.memory);
        let disk = sample.and_then(|sample| sample.disk);
        Self {
            id: vm.id.clone(),
            name: vm.name.to_string(),
            status: vm.status,
            cpus: vm.cpus,
            cpu_percent: sample.map(|sample| (sample.cpu_percent(last) * 100.0).round() / 100.0),
            cpu_seconds: sample.map(|sample| sample.cpu.as_secs_f64()),
            memory_rss_bytes: memory.map(|memory| memory.resident),
            memory_pss_bytes: memory.map(|memory| memory.proportional),
            memory_private_bytes: memory.map(|memory| memory.private),
            memory_limit_bytes: u64::from(vm.memory_mib) << 20,
            network_received_bytes: moved.map(|moved| moved.received),
            network_sent_bytes: moved.map(|moved| moved.sent),
            disk_read_bytes: disk.map(|disk| disk.read),
            disk_written_bytes: disk.map(|disk| disk.written),
            disk_throttled_events: traffic.map(|traffic| traffic.disk_throttled),
            threads: sample.map(|sample| sample.threads),
            guest_memory_total_bytes: guest.and_then(|guest| guest.total),
            guest_memory_free_bytes: guest.and_then(|guest| guest.free),
            guest_memory_available_bytes: guest.and_then(|guest| guest.available),
            guest_memory_cached_bytes: guest.and_then(|guest| guest.cached),
            balloon_bytes: guest.map(|guest| guest.balloon),
            balloon_target_bytes: guest.map(|guest| guest.balloon_target),
        }
    }
}

/// Prints a measurement; `false` where nobody reads any more.
fn print(rows: &[Row], args: &Args, printer: &Printer) -> anyhow::Result<bool> {
    let text = match (args.json, args.no_stream) {
        (true, true) => serde_json::to_string_pretty(rows)?,
        (true, false) => serde_json::to_string(rows)?,
        (false, _) => text(rows),
    };
    Ok(printer.raw(crate::output::RawOutput::Stdout, format!("{text}\n").as_bytes())?)
}

fn text(rows: &[Row]) -> String {
    let bytes = |bytes: Option<u64>| bytes.map_or("-".to_owned(), |bytes| ByteSize::b(bytes).to_string());
    let both = |a, b| format!("{} / {}", bytes(a), bytes(b));
    let cells: Vec<_> = rows
        .iter()
        .map(|row| {
            [
                row.name.clone(),
                row.id.short().to_owned(),
                row.cpu_percent.map_or("-".into(), |percent| format!("{percent:.1}%")),
                both(row.memory_rss_bytes, Some(row.memory_limit_bytes)),
                bytes(row.memory_pss_bytes),
                bytes(row.memory_private_bytes),
                both(row.network_received_bytes, row.network_sent_bytes),
                both(row.disk_read_bytes, row.disk_written_bytes),
                row.threads.map_or("-".into(), |threads| threads.to_string()),
            ]
        })
        .collect();
    let heading = [
        "NAME",
        "ID",
        "CPU",
        "MEMORY / LIMIT",
        "PSS",
        "PRIVATE",
        "NETWORK IN / OUT",
        "DISK READ / WRITTEN",
        "THREADS",
    ];
    if rows.iter().all(|row| row.balloon_bytes.is_none()) {
        return table(heading, &cells);
    }
    let cells = cells.into_iter().zip(rows).map(|(cells, row)| {
        let available = bytes(row.guest_memory_available_bytes);
        with_guest(cells, [available, both(row.balloon_bytes, row.balloon_target_bytes)])
    });
    table(with_guest(heading, ["GUEST AVAILABLE", "BALLOON / TARGET"]), &cells.collect::<Vec<_>>())
}

/// What the guest tells, beside what the host knows of its memory.
fn with_guest<T>(cells: [T; 9], [available, balloon]: [T; 2]) -> [T; 11] {
    let [name, id, cpu, memory, pss, private, network, disk, threads] = cells;
    [name, id, cpu, memory, pss, private, available, balloon, network, disk, threads]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Row {
        Row {
            id: VmId::try_from("0123456789abcdef0123456789abcdef".to_owned()).unwrap(),
            name: "web".into(),
            status: Status::Running,
            cpus: 2,
            cpu_percent: Some(150.04),
            cpu_seconds: Some(3.5),
            memory_rss_bytes: Some(300 << 20),
            memory_pss_bytes: Some(200 << 20),
            memory_private_bytes: None,
            memory_limit_bytes: 1 << 30,
            network_received_bytes: None,
            network_sent_bytes: None,
            disk_read_bytes: Some(0),
            disk_written_bytes: Some(4096),
            disk_throttled_events: Some(3),
            threads: Some(4),
            guest_memory_total_bytes: None,
            guest_memory_free_bytes: None,
            guest_memory_available_bytes: None,
            guest_memory_cached_bytes: None,
            balloon_bytes: None,
            balloon_target_bytes: None,
        }
    }

    #[test]
    fn what_is_not_known_is_a_dash_and_null() {
        let row = row();
        let table = text(std::slice::from_ref(&row));
        let line = table.lines().nth(1).unwrap();
        let cells: Vec<_> = line.split("   ").map(str::trim).filter(|cell| !cell.is_empty()).collect();
        let expected = [
            "web",
            "0123456789ab",
            "150.0%",
            "300.0 MiB / 1.0 GiB",
            "200.0 MiB",
            "-",
            "- / -",
            "0 B / 4.0 KiB",
            "4",
        ];
        assert_eq!(cells, expected, "{table}");
        let json = serde_json::to_value(&row).unwrap();
        assert_eq!(json["network_received_bytes"], serde_json::Value::Null);
        assert_eq!(json["memory_limit_bytes"], 1 << 30);
    }

    #[test]
    fn what_guests_tell_has_columns_where_one_does() {
        let with_balloon = Row {
            guest_memory_available_bytes: Some(700 << 20),
            balloon_bytes: Some(0),
            balloon_target_bytes: Some(1 << 20),
            ..row()
        };
        let table = text(&[with_balloon, row()]);
        let lines: Vec<_> = table.lines().collect();
        assert!(lines[0].contains("PRIVATE   GUEST AVAILABLE   BALLOON / TARGET   NETWORK"), "{table}");
        assert!(lines[1].contains("700.0 MiB         0 B / 1.0 MiB "), "{table}");
        assert!(lines[2].contains("-                 - / - "), "{table}");
    }
}

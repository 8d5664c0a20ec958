//! Everything between the ring buffer and the metrics, held together: one owner, so that a scrape sees one moment.

use std::{
    collections::{HashMap, HashSet},
    os::fd::{AsFd as _, OwnedFd},
    time::{Duration, Instant},
};

use rustc_hash::{FxHashMap, FxHashSet};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use super::{
    confine::Needs,
    libraries::{Change, Libraries},
    owed::Owed,
    recorder::Recorder,
    stand_in::{Busy, StandIn},
    workers::Workers,
};
use crate::{
    engine::Engine,
    event::{self, Closed, Closing, ConnectionId, Evasion, Event, Origin, ProcessChange, ServiceId},
    exchange::Unparsed,
    kernel::{Availability, Losses, Probes, TableError},
    metrics::{Metrics, Notice, Unread},
    route::Rules,
    select::{ProcFs, SelectError, Selected, Selectors, Verdict},
};

/// How many records are taken before others may have their turn.
const BATCH: usize = 8192;
/// How often unix sockets that no event ends are looked for. Looking takes no more than a hundredth of the time.
const SWEEP: Duration = Duration::from_secs(1);

/// How long after a socket has gone its last events may come: one that is written while its program is preempted holds
/// back those behind it.
const SETTLED: Duration = Duration::from_millis(50);

/// A process that needs a look, which can't be had while records are read.
enum Chore {
    Executed(u32),
    Listens(u32),
    /// Its libraries may be others.
    Mapped(u32),
    /// It speaks TLS, and nothing tells in clear text what.
    Seals(u32),
    Forked {
        parent: u32,
        child: u32,
    },
    Exited(u32),
    /// Once for each service, way and process that has it.
    Evades(ServiceId, u32, Evasion),
}

impl Chore {
    /// What a change of a process asks for.
    fn of(origin: &Origin, change: ProcessChange) -> Self {
        let pid = origin.pid;
        match change {
            ProcessChange::Executed => Self::Executed(pid),
            ProcessChange::Forked(child) => Self::Forked { parent: pid, child },
            ProcessChange::Exited { .. } => Self::Exited(pid),
            ProcessChange::Mapped => Self::Mapped(pid),
            ProcessChange::Evades(how) => Self::Evades(origin.service, pid, how),
        }
    }
}

/// The probes, what they told, and what was made of it.
pub(super) struct Pipeline {
    probes: Probes,
    /// None where it can't be had.
    stand_in: Option<StandIn>,
    engine: Engine,
    recorder: Option<Recorder>,
    owed: Owed,
    /// None where TLS isn't read.
    libraries: Option<Libraries>,
    selectors: Selectors,
    proc: ProcFs,
    /// The selected processes, and what for, as of the events that were read: each look into the kernel side's table has
    /// the kernel skip classic programs on that processor meanwhile.
    selected: FxHashMap<u32, ServiceId>,
    services: HashMap<String, ServiceId>,
    /// Listening sockets that were prepared, by inode number.
    prepared: HashSet<u64>,
    chores: Vec<Chore>,
    workers: Workers,
    /// Which services were said to move bytes past the probes, and how.
    evasions: HashSet<(ServiceId, Evasion)>,
    next_sweep: Instant,
    /// Connections whose socket nobody had when that was looked at, and when that was first.
    absent: FxHashMap<ConnectionId, Instant>,
    /// How many events had found no room when that was last looked at.
    missed: u64,
    /// Processes for which the kernel side's table has no room.
    roomless: HashSet<u32>,
    /// How many of them the kernel side doesn't know of.
    unselected: u64,
}

impl Needs for Pipeline {
    fn libraries(&self) -> bool {
        self.libraries.is_some()
    }

    fn libraries_work(&mut self) -> bool {
        self.probes.injector().is_some_and(|injector| injector.try_out().is_ok())
    }

    fn tables_work(&self) -> bool {
        self.probes.tables_work()
    }
}

impl Pipeline {
    pub(super) fn new(
        probes: Probes,
        engine: Engine,
        selectors: Selectors,
        recorder: Option<Recorder>,
    ) -> Self {
        for (feature, availability) in probes.features().iter() {
            engine.metrics.feature(feature.name(), *availability == Availability::Enabled);
        }
        let libraries =
            probes.injector().cloned().map(|injector| Libraries::new(injector, probes.shares_functions()));
        Self {
            probes,
            stand_in: None,
            engine,
            recorder,
            owed: Owed::default(),
            libraries,
            selectors,
            proc: ProcFs::default(),
            selected: FxHashMap::default(),
            services: HashMap::new(),
            prepared: HashSet::new(),
            chores: Vec::new(),
            workers: Workers::default(),
            evasions: HashSet::new(),
            next_sweep: Instant::now(),
            absent: FxHashMap::default(),
            missed: 0,
            roomless: HashSet::new(),
            unselected: 0,
        }
    }

    pub(super) fn probes(&self) -> &Probes {
        &self.probes
    }

    /// From now on somebody makes room for records while this is busy.
    pub(super) fn stand_in(&mut self) {
        match StandIn::start(self.probes.reader()) {
            Ok(stand_in) => self.stand_in = Some(stand_in),
            Err(error) => tracing::warn!(
                "a thread can't be started: {error}; events may be lost while httpmon looks through processes"
            ),
        }
    }

    /// What is done until this is dropped may take long: a look at one process is no such thing.
    pub(super) fn busy(&self) -> Option<Busy> {
        self.stand_in.as_ref().map(StandIn::busy)
    }

    /// Takes the processes that run now. What they fork meanwhile is found by looking again; how many are taken.
    pub(super) fn take_running(&mut self) -> Result<usize, SelectError> {
        self.take_all(Selectors::select)
    }

    /// Takes what is selected, as long as there is more of it.
    fn take_all(
        &mut self,
        find: impl Fn(&Selectors, &ProcFs) -> Result<Vec<Selected>, SelectError>,
    ) -> Result<usize, SelectError> {
        let _busy = self.busy();
        let mut taken = 0;
        loop {
            let mut found = find(&self.selectors, &self.proc)?;
            found.retain(|process| !self.probes.has_selected(process.pid));
            let new: Vec<u32> =
                found.iter().filter(|process| self.take(process)).map(|process| process.pid).collect();
            if new.is_empty() {
                return Ok(taken);
            }
            self.prepare_listeners(&new);
            taken += new.len();
        }
    }

    /// Reads waiting records; whether there may be more.
    pub(super) fn drain(&mut self) -> bool {
        let Self { probes, engine, selected, chores, workers, recorder, owed, libraries, .. } = self;
        let reads_tls = libraries.is_some();
        let mut take = |record: &[u8]| match event::decode(record) {
            Ok(event) => {
                match &event {
                    Event::Process(origin, change) => {
                        match change {
                            ProcessChange::Forked(child) => {
                                selected.insert(*child, origin.service);
                            }
                            ProcessChange::Exited { cpu, .. } => {
                                selected.remove(&origin.pid);
                                workers.ended(origin.service, *cpu);
                            }
                            _ => {}
                        }
                        chores.push(Chore::of(origin, *change));
                    }
                    Event::Listening(origin, _) => chores.push(Chore::Listens(origin.pid)),
                    Event::Data(origin, _, data) if data.offset == 0 && reads_tls && data.begins_tls() => {
                        chores.push(Chore::Seals(origin.pid));
                    }
                    _ => {}
                }
                match recorder {
                    Some(recorder) => recorder.take(&event, record, engine),
                    None => engine.take(&event),
                }
            }
            Err(error) => {
                tracing::debug!("a record can't be read: {error}");
                engine.metrics.undecodable();
            }
        };
        let count = probes.drain(BATCH, |record| owed.pass(record, &mut take));
        engine.metrics.events(count as u64);
        for chore in std::mem::take(&mut self.chores) {
            self.attend(&chore);
        }
        for notice in self.engine.metrics.take_notices() {
            self.say(notice);
        }
        if self.engine.connections.take_cut() {
            match self.probes.raise_limits() {
                Ok(true) => {
                    tracing::debug!("heads are longer than what was copied: copying more from now on");
                }
                Ok(false) => {}
                Err(error) => tracing::warn!("the probes' limits can't be raised: {error}"),
            }
        }
        count == BATCH
    }

    /// What is counted.
    pub(super) fn metrics(&self) -> &Metrics {
        &self.engine.metrics
    }

    /// Other processes, routes and ignored paths from now on.
    pub(super) fn reload(&mut self, selectors: Selectors, rules: Rules) {
        let _busy = self.busy();
        self.engine.metrics.rules(rules);
        let before = std::mem::replace(&mut self.selectors, selectors);
        let (wanted, selected) = match (before.select(&self.proc), self.selectors.select(&self.proc)) {
            (Ok(wanted), Ok(selected)) => (wanted, selected),
            (Err(error), _) | (_, Err(error)) => return tracing::warn!("{error}"),
        };
        // What they did until now is theirs.
        while self.drain() {}
        let before = self.selected.clone();
        // A process that no selector ever matched, and whose parent has gone, is still a child of one that was taken.
        let is_in = |processes: &[Selected], pid| processes.iter().any(|process| process.pid == pid);
        for &pid in before.keys().filter(|pid| is_in(&wanted, **pid) && !is_in(&selected, **pid)) {
            tracing::info!(pid, "not selected any more");
            self.deselect(pid);
        }
        for process in &selected {
            let service = self.services.get(&process.service);
            if before.contains_key(&process.pid) && before.get(&process.pid) != service {
                self.take(process);
            }
        }
        if let Err(error) = self.take_running() {
            tracing::warn!("{error}");
        }
        // Connections have their listening socket's service.
        self.prepared.clear();
        let pids: Vec<u32> = self.selected.keys().copied().collect();
        self.prepare_listeners(&pids);
    }

    /// Counts everything that happened until now.
    pub(super) fn refresh(&mut self) {
        while self.drain() {}
        let losses = self.losses();
        if let Some(recorder) = &mut self.recorder {
            recorder.losses(&losses);
        }
        self.engine.metrics.lost("ring_full", losses.ring_full);
        self.engine.metrics.lost("map_full", losses.map_full);
        self.engine.metrics.lost("preempted", losses.preempted);
        self.engine.metrics.requests_lost(losses.requests);
        for program in self.probes.programs() {
            self.engine.metrics.probe_ran(program.name, program.run_nanoseconds as f64 / 1e9);
        }
        self.engine.metrics.open_connections(self.engine.connections.open());
        self.engine.metrics.workers(&self.workers.usage(&self.proc, &self.selected));
    }

    /// What never reached the agent, and what the agent itself found no room for.
    fn losses(&self) -> Losses {
        let losses = self.probes.losses();
        Losses { map_full: losses.map_full + self.unselected, ..losses }
    }

    /// Looks for unix sockets that were closed: no event tells. Those on whose end a response waits are looked for each time.
    pub(super) fn sweep(&mut self) {
        let begun = Instant::now();
        let everything = begun >= self.next_sweep;
        if everything {
            self.recover();
            self.find_room();
            self.next_sweep = begun + SWEEP;
        }
        let settled: FxHashSet<ConnectionId> =
            self.absent.extract_if(|_, since| begun >= *since + SETTLED).map(|(id, _)| id).collect();
        let connections = &self.engine.connections;
        let mut missing: Vec<_> = if everything {
            connections.suspects().collect()
        } else {
            connections.urgent().chain(settled.iter().filter_map(|id| connections.suspect(*id))).collect()
        };
        if missing.is_empty() {
            return;
        }
        let _busy = self.busy();
        missing.retain(|suspect| !self.proc.has_socket_at(suspect.pid, suspect.fd, suspect.inode));
        if !missing.is_empty() {
            let held = self.proc.sockets_of(self.selected.keys().copied());
            missing.retain(|suspect| !held.contains(&suspect.inode));
        }
        // What happened to them before they were closed comes first.
        while self.drain() {}
        let closed = Closed { how: Closing::Fully, reset: false, exit_code: None, received: 0, sent: 0 };
        for suspect in missing {
            let id = suspect.connection;
            if !settled.contains(&id) && !self.engine.connections.is_urgent(id) {
                self.absent.entry(id).or_insert(begun);
                continue;
            }
            let Engine { connections, metrics } = &mut self.engine;
            connections.close(id, &closed, metrics);
            if let Some(recorder) = &mut self.recorder {
                recorder.closed(id, suspect.pid);
            }
        }
        if everything {
            self.next_sweep = begun + SWEEP.max(begun.elapsed() * 100);
        }
    }

    /// Where events were lost, among them may have been the ends of connections, and the starts of programs.
    fn recover(&mut self) {
        let losses = self.probes.losses();
        let missed = losses.ring_full + losses.map_full + losses.preempted;
        if missed == self.missed {
            return;
        }
        self.missed = missed;
        let _busy = self.busy();
        self.selected = self.probes.selected().collect();
        let suspects: Vec<_> = self.engine.connections.inet().collect();
        let mut tables = HashMap::new();
        let mut gone = Vec::new();
        for (connection, pid, local, remote) in suspects {
            let namespace = self.proc.network_of(pid);
            let table = tables.entry(namespace).or_insert_with(|| self.proc.tcp_connections(pid));
            if table.as_ref().is_some_and(|open| !open.contains(&(local, remote))) {
                gone.push(connection);
            }
        }
        // What happened to them before they were closed comes first.
        while self.drain() {}
        for connection in gone {
            let Engine { connections, metrics } = &mut self.engine;
            connections.lose(connection, metrics);
            if let Some(recorder) = &mut self.recorder {
                recorder.closed(connection, 0);
            }
        }
        let unselected = self.unselected;
        if let Err(error) = self.take_running() {
            tracing::warn!("{error}");
        }
        // Those that find no room now were counted when they were forked.
        self.unselected = unselected;
    }

    /// Takes processes for which there was no room, once there is.
    fn find_room(&mut self) {
        let Self { roomless, proc, .. } = self;
        if roomless.is_empty() {
            return;
        }
        roomless.retain(|pid| proc.exists(*pid));
        if let Err(error) = self.take_running() {
            tracing::warn!("{error}");
        }
        if self.roomless.is_empty() {
            tracing::info!("there is room for all selected processes again");
        }
    }

    /// Counts what is left, and tells nobody any more.
    pub(super) fn stop(&mut self) {
        while self.drain() {}
        let losses = self.losses();
        if let Some(recorder) = &mut self.recorder {
            recorder.losses(&losses);
            recorder.finish();
        }
        self.engine.metrics.hush();
    }

    /// Tells, once for each service, what httpmon can't read of it.
    fn say(&self, notice: Notice) {
        let Notice { service, pid, what } = notice;
        let what = match what {
            Unread::Http3 => {
                "offers HTTP/3 (Alt-Svc), which comes by UDP: requests over that are neither seen nor counted"
            }
            Unread::Bytes(Unparsed::Tls) => {
                "speaks TLS by a library in which httpmon can't read it: its bytes are counted with reason=\"tls\""
            }
            Unread::Bytes(Unparsed::Http2) => {
                "received bytes that begin like HTTP/2 and aren't: they are counted with reason=\"http2\""
            }
            Unread::Bytes(Unparsed::IoUring) => {
                "moves bytes by io_uring, where the probes can't read them: they are counted with reason=\"io_uring\""
            }
            Unread::Bytes(Unparsed::NotHttp) => {
                "received bytes that are not HTTP: they are counted with reason=\"not_http\""
            }
            Unread::Bytes(Unparsed::Desync) => {
                "has a connection of which events were lost or not captured: its bytes are counted with reason=\"desync\" until a message surely begins"
            }
        };
        self.say_once(service, pid, what);
    }

    /// Says what a service does, of which this process is an example.
    fn say_once(&self, service: ServiceId, pid: u32, what: &str) {
        let process = self.proc.name_of(pid).unwrap_or_default();
        tracing::warn!(
            service = self.engine.metrics.service_name(service),
            pid,
            process,
            "{what} (said once)"
        );
    }

    /// Tells, once for each service, which of its bytes are not seen at all.
    fn say_evades(&mut self, service: ServiceId, pid: u32, how: Evasion) {
        if !self.evasions.insert((service, how)) {
            return;
        }
        let what = match how {
            Evasion::IoUring => {
                "uses io_uring: what that moves over sockets is neither seen nor counted by the syscall backend"
            }
            Evasion::Calls32Bit => {
                "makes 32-bit system calls: what those move over sockets is neither seen nor counted by the syscall backend"
            }
        };
        self.say_once(service, pid, &format!("{what}; the socket backend (Linux 6.3) counts it"));
    }

    fn attend(&mut self, chore: &Chore) {
        let pid = match *chore {
            Chore::Executed(pid) => pid,
            Chore::Listens(pid) if self.selected.contains_key(&pid) => return,
            Chore::Listens(pid) => pid,
            Chore::Evades(service, pid, how) => return self.say_evades(service, pid, how),
            Chore::Mapped(pid) => return self.tell_libraries_of(pid, Change::Mapped(pid)),
            Chore::Seals(pid) => return self.tell_libraries_of(pid, Change::Seals(pid)),
            Chore::Forked { parent, child } => {
                return self.tell_libraries_of(child, Change::Forked { parent, child });
            }
            Chore::Exited(pid) => return self.tell_libraries(Change::Gone(pid)),
        };
        if matches!(chore, Chore::Executed(_)) && self.selected.contains_key(&pid) {
            self.tell_libraries(Change::Executed(pid));
        }
        match self.selectors.judge(&self.proc, pid) {
            Verdict::Taken(process) => {
                let before = self.selected.get(&pid).copied();
                if before.is_some() && before == self.services.get(&process.service).copied() {
                    return;
                }
                if self.take(&process) {
                    self.prepare_listeners(&[pid]);
                    if let (None, Some(service)) = (before, self.selected.get(&pid).copied()) {
                        self.engine.metrics.born(service);
                    }
                }
                if before.is_none() {
                    // It may have forked before it was taken.
                    let taken = self.take_all(|selectors, proc| selectors.select_younger(proc, pid));
                    if let Err(error) = taken {
                        tracing::warn!("{error}");
                    }
                }
            }
            Verdict::Excluded => {
                if self.selected.contains_key(&pid) {
                    tracing::info!(pid, "excluded by name");
                    self.deselect(pid);
                }
            }
            Verdict::Unmatched => {}
        }
    }

    /// What a process has mapped has changed.
    fn tell_libraries(&self, change: Change) {
        if let Some(libraries) = &self.libraries {
            libraries.tell(change);
        }
    }

    /// The same, unless the process was taken off since.
    fn tell_libraries_of(&self, pid: u32, change: Change) {
        if self.libraries.is_some() && self.selected.contains_key(&pid) {
            self.tell_libraries(change);
        }
    }

    /// Puts probes into the libraries of the processes that are taken, and from now on of those that will be.
    pub(super) fn watch_libraries(&mut self) {
        let _busy = self.busy();
        if let Some(libraries) = &mut self.libraries
            && let Err(error) = libraries.start()
        {
            tracing::warn!("TLS isn't read: a thread can't be started: {error}");
            self.libraries = None;
        }
    }

    /// Selects a process in the kernel; whether it is (still) there.
    fn take(&mut self, process: &Selected) -> bool {
        let pid = process.pid;
        let service = self.service(&process.service);
        if let Err(error) = self.probes.select(pid, service) {
            self.has_no_room(pid, &error);
            return false;
        }
        self.selected.insert(pid, service);
        self.roomless.remove(&pid);
        // Had it ended before it was selected, nothing would take it off again.
        if !self.proc.exists(pid) {
            self.deselect(pid);
            return false;
        }
        tracing::info!(pid, service = %process.service, why = %process.reason, "taken");
        self.tell_libraries(Change::Taken(pid));
        true
    }

    /// Says so of the first one; they are many where there is one.
    fn has_no_room(&mut self, pid: u32, error: &TableError) {
        let is_first = self.roomless.is_empty();
        if !self.roomless.insert(pid) {
            return;
        }
        self.unselected += 1;
        if is_first {
            tracing::error!(
                pid,
                "can't be selected: {error}; its requests are not counted, nor those of others for which there is no \
                 room, until there is: select fewer processes, or start with a larger --room processes=N"
            );
        }
    }

    fn deselect(&mut self, pid: u32) {
        self.tell_libraries(Change::Gone(pid));
        self.selected.remove(&pid);
        if let Err(error) = self.probes.deselect(pid) {
            tracing::error!(
                pid,
                "can't be taken off: {error}; requests on its open connections are still counted"
            );
        }
    }

    /// Lets connections to listening sockets be known from their birth, as they are where the listening began later.
    fn prepare_listeners(&mut self, pids: &[u32]) {
        let _busy = self.busy();
        for (pid, fd, inode) in self.proc.listeners_of(pids) {
            let Some(service) = self.selected.get(&pid).copied() else { continue };
            if !self.prepared.insert(inode) {
                continue;
            }
            let prepared = borrow_descriptor(pid, fd).map_err(|error| error.to_string()).and_then(|socket| {
                self.probes.prepare_listener(socket.as_fd(), pid, service).map_err(|error| error.to_string())
            });
            if let Err(error) = prepared {
                tracing::debug!(
                    pid,
                    fd,
                    "a listening socket can't be prepared: {error}; its connections are known from their first message on"
                );
            }
        }
    }

    fn service(&mut self, name: &str) -> ServiceId {
        if let Some(&known) = self.services.get(name) {
            return known;
        }
        // 0 is the kernel side's word for none.
        let id = ServiceId(self.services.len() as u32 + 1);
        self.services.insert(name.to_owned(), id);
        self.engine.metrics.service(id, name);
        if let Some(recorder) = &mut self.recorder {
            recorder.service(id, name);
        }
        id
    }
}

/// Another process's open file, for as long as the result lives (`pidfd_getfd(2)`, Linux 5.6).
fn borrow_descriptor(pid: u32, fd: i32) -> std::io::Result<OwnedFd> {
    let pid = Pid::from_raw(pid.cast_signed()).ok_or(std::io::ErrorKind::InvalidInput)?;
    let process = pidfd_open(pid, PidfdFlags::empty())?;
    Ok(pidfd_getfd(process, fd, PidfdGetfdFlags::empty())?)
}

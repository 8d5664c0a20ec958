//! Probes in the TLS libraries of selected processes: each process has its own, since others that have mapped the same file
//! are none of httpmon's business; or where that is wanted, all that have mapped it share them, so that a child has them from
//! its birth. They are put there when the process is taken, forks, runs a new program, or maps a library.
//!
//! The kernel takes milliseconds to put a probe on, and more to take it off: a thread of its own does the one, another the
//! other.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use procfs::process::{MMPermissions, MMapPath, Process};

use crate::{
    kernel::{Attached, Injector},
    tls::{self, Point},
};

/// How often the libraries of a process are looked at, when all that tells is that it speaks TLS.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// How many files are known at most. Beyond that, those are forgotten that no process was found to need.
const MOST_FILES: usize = 1024;

/// How many threads take probes off at once, each of which waits for the kernel.
const MOST_THREADS: usize = 32;

/// What has become of a process.
#[derive(Debug)]
pub(super) enum Change {
    /// It was taken.
    Taken(u32),
    /// It has mapped something.
    Mapped(u32),
    /// It speaks TLS, by a library that nobody told of.
    Seals(u32),
    /// It has a child, which has mapped what it has.
    Forked {
        /// It.
        parent: u32,
        /// The child.
        child: u32,
    },
    /// It runs a new program.
    Executed(u32),
    /// It has ended, or isn't selected any more.
    Gone(u32),
    /// Everything before this has been attended to when the sender learns that this was dropped.
    Done(mpsc::Sender<()>),
}

/// The thread, and the way to it.
pub(super) struct Libraries {
    changes: Option<mpsc::Sender<Change>>,
    waiting: Option<(Injector, bool, mpsc::Receiver<Change>)>,
    thread: Option<JoinHandle<()>>,
}

impl Libraries {
    /// What it is told waits until it is started.
    pub(super) fn new(injector: Injector, shared: bool) -> Self {
        let (changes, waiting) = mpsc::channel();
        Self { changes: Some(changes), waiting: Some((injector, shared, waiting)), thread: None }
    }

    /// Starts the thread, and waits until it has attended to what waited.
    pub(super) fn start(&mut self) -> std::io::Result<()> {
        let Some((injector, shared, changes)) = self.waiting.take() else { return Ok(()) };
        let (off, gone) = mpsc::channel();
        let remover = std::thread::Builder::new().name("remover".to_owned()).spawn(move || {
            while let Ok(first) = gone.recv() {
                take_off(std::iter::once(first).chain(gone.try_iter()).flatten().collect());
            }
        })?;
        let thread = std::thread::Builder::new().name("libraries".to_owned()).spawn(move || {
            let mut keeper = Keeper::new(injector, shared, off);
            for change in changes {
                keeper.attend(change);
            }
            drop(keeper);
            let _ = remover.join();
        })?;
        self.thread = Some(thread);
        let (done, all) = mpsc::channel();
        self.tell(Change::Done(done));
        // It ends with an error, when the other end is dropped.
        let _ = all.recv();
        Ok(())
    }

    /// Something has become of a process.
    pub(super) fn tell(&self, change: Change) {
        if let Some(changes) = &self.changes {
            // The thread lives as long as this.
            let _ = changes.send(change);
        }
    }
}

impl Drop for Libraries {
    fn drop(&mut self) {
        self.changes = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A file by what the memory maps say of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct FileId {
    device: (i32, i32),
    inode: u64,
}

/// A file that has functions. It is held open: so its number stays its own, and it can be had after it was replaced.
#[derive(Debug)]
struct Library {
    file: File,
    path: PathBuf,
    points: Vec<Point>,
}

impl Library {
    /// Whether it gives clear text: the loader doesn't.
    fn speaks_tls(&self) -> bool {
        self.points.iter().any(|point| point.role.gives_clear_text())
    }
}

/// What a process has.
#[derive(Default)]
struct Watched {
    libraries: Vec<(FileId, Arc<Library>)>,
    attached: Vec<Attached>,
    looked: Option<Instant>,
}

impl Watched {
    fn speaks_tls(&self) -> bool {
        self.libraries.iter().any(|(_, library)| library.speaks_tls())
    }
}

/// What all of them have.
struct Keeper {
    injector: Injector,
    files: HashMap<FileId, Option<Arc<Library>>>,
    processes: HashMap<u32, Watched>,
    /// Files that can't be watched, which was said.
    refused: HashSet<FileId>,
    /// The probes that processes share, and how many do; none where each has its own.
    shared: Option<HashMap<FileId, (usize, Vec<Attached>)>>,
    /// To the thread that takes probes off.
    off: mpsc::Sender<Vec<Attached>>,
}

impl Keeper {
    fn new(injector: Injector, shared: bool, off: mpsc::Sender<Vec<Attached>>) -> Self {
        Self {
            injector,
            files: HashMap::new(),
            processes: HashMap::new(),
            shared: shared.then(HashMap::new),
            refused: HashSet::new(),
            off,
        }
    }

    fn attend(&mut self, change: Change) {
        match change {
            Change::Taken(pid) | Change::Mapped(pid) => self.look(pid),
            Change::Seals(pid) => {
                let known = self.processes.get(&pid);
                let looked = known.and_then(|watched| watched.looked);
                if !known.is_some_and(Watched::speaks_tls)
                    && looked.is_none_or(|at| at.elapsed() >= LOOK_AGAIN)
                {
                    self.look(pid);
                }
            }
            Change::Forked { parent, child } => self.forked(parent, child),
            Change::Executed(pid) => {
                let before = self.processes.remove(&pid);
                self.look(pid);
                self.take_off(before);
            }
            Change::Gone(pid) => {
                let before = self.processes.remove(&pid);
                self.take_off(before);
            }
            Change::Done(sender) => drop(sender),
        }
    }

    fn take_off(&mut self, watched: Option<Watched>) {
        let Some(watched) = watched else { return };
        let mut attached = watched.attached;
        if let Some(shared) = &mut self.shared {
            for (id, _) in &watched.libraries {
                if let Some((users, _)) = shared.get_mut(id) {
                    *users -= 1;
                    if *users == 0 {
                        attached.extend(shared.remove(id).into_iter().flat_map(|(_, attached)| attached));
                    }
                }
            }
        }
        // The other thread lives as long as this one.
        let _ = self.off.send(attached);
    }

    /// Probes for one more process; those that it has for itself.
    fn attach(&mut self, pid: u32, id: FileId, library: &Library) -> Result<Vec<Attached>, String> {
        let Some(shared) = &mut self.shared else {
            return self.injector.attach(&library.points, &library.file, Some(pid));
        };
        if let Some((users, _)) = shared.get_mut(&id) {
            *users += 1;
        } else {
            let attached = self.injector.attach(&library.points, &library.file, None)?;
            shared.insert(id, (1, attached));
        }
        Ok(Vec::new())
    }

    /// Watches what a process has mapped and isn't watched. Meanwhile it may map more, which nothing tells until its loader is
    /// watched.
    fn look(&mut self, pid: u32) {
        loop {
            let found = self.mapped(pid);
            let watched = self.processes.entry(pid).or_default();
            watched.looked = Some(Instant::now());
            let new: Vec<_> = found
                .into_iter()
                .filter(|(id, _)| !watched.libraries.iter().any(|(known, _)| known == id))
                .collect();
            let before = watched.libraries.len();
            for library in new {
                self.watch(pid, library);
            }
            if self.processes.get(&pid).is_none_or(|watched| watched.libraries.len() == before) {
                return;
            }
        }
    }

    /// A child needs what speaks TLS in its parent. It maps more seldom, and what it says then tells.
    fn forked(&mut self, parent: u32, child: u32) {
        let Some(of_parent) = self.processes.get(&parent) else { return };
        let libraries: Vec<_> =
            of_parent.libraries.iter().filter(|(_, library)| library.speaks_tls()).cloned().collect();
        for library in libraries {
            self.watch(child, library);
        }
    }

    /// The libraries that a process has mapped.
    fn mapped(&mut self, pid: u32) -> Vec<(FileId, Arc<Library>)> {
        let maps = i32::try_from(pid).ok().and_then(|pid| Process::new(pid).ok()?.maps().ok());
        let mut found = Vec::new();
        for map in maps.into_iter().flatten() {
            let MMapPath::Path(path) = &map.pathname else { continue };
            let id = FileId { device: map.dev, inode: map.inode };
            if !map.perms.contains(MMPermissions::EXECUTE) || found.iter().any(|(known, _)| *known == id) {
                continue;
            }
            if let Some(library) = self.library(pid, id, path) {
                found.push((id, library));
            }
        }
        found
    }

    fn library(&mut self, pid: u32, id: FileId, path: &Path) -> Option<Arc<Library>> {
        if let Some(known) = self.files.get(&id) {
            return known.clone();
        }
        let file = open(pid, id, path)?;
        let points = tls::points(&file).unwrap_or_default();
        let library = (!points.is_empty()).then(|| Arc::new(Library { file, path: path.to_owned(), points }));
        if self.files.len() == MOST_FILES {
            self.files
                .retain(|_, library| library.as_ref().is_some_and(|known| Arc::strong_count(known) > 1));
        }
        self.files.insert(id, library.clone());
        library
    }

    fn watch(&mut self, pid: u32, (id, library): (FileId, Arc<Library>)) {
        match self.attach(pid, id, &library) {
            Ok(attached) => {
                tracing::debug!(pid, "watching {}", library.path.display());
                let watched = self.processes.entry(pid).or_default();
                watched.attached.extend(attached);
                watched.libraries.push((id, library));
            }
            Err(_) if !PathBuf::from(format!("/proc/{pid}")).exists() => {}
            Err(error) => {
                if self.refused.insert(id) {
                    tracing::warn!(
                        pid,
                        "TLS of {} can't be read: {error}; its bytes are counted with reason=\"tls\" (said once)",
                        library.path.display()
                    );
                }
            }
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        for (_, watched) in std::mem::take(&mut self.processes) {
            self.take_off(Some(watched));
        }
    }
}

/// Opens a mapped file: by the process's own root, which is part of the path where it is no mount of its own (`chroot`), or
/// where it stands for everybody, as what was mapped before the root changed. One that was replaced has another number.
fn open(pid: u32, id: FileId, path: &Path) -> Option<File> {
    let root = PathBuf::from(format!("/proc/{pid}/root"));
    let within = std::fs::read_link(&root).ok().and_then(|above| path.strip_prefix(above).ok());
    let places = [within.map(|within| root.join(within)), Some(path.to_owned())];
    let found = places.into_iter().flatten().find_map(|place| {
        let file = File::open(place).ok()?;
        (file.metadata().ok()?.ino() == id.inode).then_some(file)
    });
    if found.is_none() {
        tracing::debug!(pid, "{} is not what the process has mapped", path.display());
    }
    found
}

/// Takes probes off.
fn take_off(mut attached: Vec<Attached>) {
    let share = attached.len().div_ceil(MOST_THREADS).max(1);
    std::thread::scope(|scope| {
        while attached.len() > share {
            let some = attached.split_off(attached.len() - share);
            // Where no thread can be had, they go here.
            let _ = std::thread::Builder::new().spawn_scoped(scope, move || drop(some));
        }
        drop(attached);
    });
}

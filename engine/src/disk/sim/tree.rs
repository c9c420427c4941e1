//! The simulated directories: names as programs see them, names that survive a crash, and the changes between the two.

use rand::{Rng, rngs::SmallRng};
use std::{
    collections::BTreeMap,
    io,
    path::{Component, Path},
};

/// A file or directory.
pub(super) type Node = usize;

/// The root directory.
const ROOT: Node = 0;

type Names = BTreeMap<String, Node>;

#[derive(Clone, Default)]
struct Directory {
    seen: Names,
    durable: Names,
}

#[derive(Clone)]
enum NameChange {
    Add { directory: Node, name: String, node: Node },
    Remove { directory: Node, name: String, node: Node },
    Rename { from: Node, old: String, to: Node, new: String, node: Node },
}

/// A change of names, with the directories whose flush it still waits for.
#[derive(Clone)]
struct Pending {
    number: u64,
    change: NameChange,
    waits: Vec<Node>,
}

/// All names.
#[derive(Clone)]
pub(super) struct Tree {
    directories: BTreeMap<Node, Directory>,
    pending: Vec<Pending>,
    next: Node,
}

fn apply(directories: &mut BTreeMap<Node, Directory>, change: &NameChange, names: fn(&mut Directory) -> &mut Names) {
    match change {
        NameChange::Add { directory, name, node } => {
            if let Some(directory) = directories.get_mut(directory) {
                names(directory).insert(name.clone(), *node);
            }
        }
        NameChange::Remove { directory, name, node } => {
            if let Some(directory) = directories.get_mut(directory)
                && names(directory).get(name) == Some(node)
            {
                names(directory).remove(name);
            }
        }
        NameChange::Rename { from, old, to, new, node } => {
            let there = directories.get_mut(from).is_some_and(|from| names(from).get(old) == Some(node));
            if there && directories.contains_key(to) {
                names(directories.get_mut(from).expect("looked up")).remove(old);
                names(directories.get_mut(to).expect("looked up")).insert(new.clone(), *node);
            }
        }
    }
}

fn seen(directory: &mut Directory) -> &mut Names {
    &mut directory.seen
}

fn durable(directory: &mut Directory) -> &mut Names {
    &mut directory.durable
}

fn error(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code)
}

impl Tree {
    pub(super) fn new() -> Tree {
        Tree { directories: BTreeMap::from([(ROOT, Directory::default())]), pending: Vec::new(), next: ROOT + 1 }
    }

    fn names(path: &Path) -> impl Iterator<Item = &str> {
        path.components().filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_str().expect("names are UTF-8")),
            _ => None,
        })
    }

    /// The node at a path.
    pub(super) fn find(&self, path: &Path) -> io::Result<Node> {
        let mut node = ROOT;
        for name in Self::names(path) {
            let directory = self.directories.get(&node).ok_or_else(|| error(libc::ENOTDIR))?;
            node = *directory.seen.get(name).ok_or_else(|| error(libc::ENOENT))?;
        }
        Ok(node)
    }

    fn parent(&self, path: &Path) -> io::Result<(Node, String)> {
        let name = Self::names(path).last().ok_or_else(|| error(libc::EINVAL))?.to_owned();
        let parent = self.find(path.parent().unwrap_or(Path::new("")))?;
        if self.is_directory(parent) { Ok((parent, name)) } else { Err(error(libc::ENOTDIR)) }
    }

    pub(super) fn is_directory(&self, node: Node) -> bool {
        self.directories.contains_key(&node)
    }

    /// Names and nodes of a directory, in order.
    pub(super) fn entries(&self, node: Node) -> io::Result<impl Iterator<Item = (&String, &Node)>> {
        Ok(self.directories.get(&node).ok_or_else(|| error(libc::ENOTDIR))?.seen.iter())
    }

    fn change(&mut self, number: u64, change: NameChange, mut waits: Vec<Node>) {
        apply(&mut self.directories, &change, seen);
        waits.dedup();
        self.pending.push(Pending { number, change, waits });
    }

    /// A new file or directory. It must not exist.
    pub(super) fn create(&mut self, number: u64, path: &Path, is_directory: bool) -> io::Result<Node> {
        let (parent, name) = self.parent(path)?;
        if self.find(path).is_ok() {
            return Err(error(libc::EEXIST));
        }
        let node = self.next;
        self.next += 1;
        if is_directory {
            self.directories.insert(node, Directory::default());
        }
        self.change(number, NameChange::Add { directory: parent, name, node }, vec![parent]);
        Ok(node)
    }

    pub(super) fn remove(&mut self, number: u64, path: &Path, is_directory: bool) -> io::Result<Node> {
        let node = self.find(path)?;
        let (directory, name) = self.parent(path)?;
        match (is_directory, self.directories.get(&node)) {
            (true, None) => return Err(error(libc::ENOTDIR)),
            (false, Some(_)) => return Err(error(libc::EISDIR)),
            (true, Some(removed)) if !removed.seen.is_empty() => return Err(error(libc::ENOTEMPTY)),
            _ => {}
        }
        self.change(number, NameChange::Remove { directory, name, node }, vec![directory]);
        Ok(node)
    }

    /// Returns the file that was replaced.
    pub(super) fn rename(&mut self, number: u64, from: &Path, to: &Path) -> io::Result<Option<Node>> {
        let node = self.find(from)?;
        let replaced = self.find(to).ok();
        if replaced == Some(node) {
            return Ok(None);
        }
        if let Some(replaced) = replaced {
            if let Some(directory) = self.directories.get(&replaced)
                && !directory.seen.is_empty()
            {
                return Err(error(libc::ENOTEMPTY));
            }
            if self.is_directory(node) != self.is_directory(replaced) {
                return Err(error(if self.is_directory(replaced) { libc::EISDIR } else { libc::ENOTDIR }));
            }
        }
        let (from, old) = self.parent(from)?;
        let (to, new) = self.parent(to)?;
        self.change(number, NameChange::Rename { from, old, to, new, node }, vec![from, to]);
        Ok(replaced)
    }

    /// A flush of a directory that was submitted after change `up_to` has succeeded.
    pub(super) fn flushed(&mut self, directory: Node, up_to: u64) {
        for pending in &mut self.pending {
            if pending.number <= up_to {
                pending.waits.retain(|waits| *waits != directory);
            }
        }
        let (done, pending) = std::mem::take(&mut self.pending).into_iter().partition(|pending: &Pending| pending.waits.is_empty());
        self.pending = pending;
        for pending in done {
            apply(&mut self.directories, &pending.change, durable);
        }
    }

    /// Power is lost: each change of names is kept with the chance `keep`.
    pub(super) fn crash(&mut self, random: &mut SmallRng, keep: f64) {
        for pending in std::mem::take(&mut self.pending) {
            if random.random_bool(keep) {
                apply(&mut self.directories, &pending.change, durable);
            }
        }
        for directory in self.directories.values_mut() {
            directory.seen = directory.durable.clone();
        }
    }

    /// Every node that has a name.
    pub(super) fn reachable(&self) -> Vec<Node> {
        let mut found = vec![ROOT];
        let mut next = 0;
        while next < found.len() {
            if let Some(directory) = self.directories.get(&found[next]) {
                found.extend(directory.seen.values());
            }
            next += 1;
        }
        found
    }

    /// Forgets directories that nothing names any more.
    pub(super) fn forget(&mut self, reachable: &[Node]) {
        self.directories.retain(|node, _| reachable.contains(node));
    }
}

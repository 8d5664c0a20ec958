//! Who may ask: users and their passwords' bcrypt hashes.
//!
//! Comparing takes long on purpose: what was right once is remembered, by a keyed digest, and one password is compared
//! at a time, beside everything else. A user that isn't there takes as long as one that is.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Mutex, PoisonError},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use ring::{hmac, rand::SystemRandom};
use tokio::sync::Semaphore;

use super::file::Hash;

/// How many right passwords are remembered. bcrypt ignores what follows 72 bytes, so that a user can have several.
const REMEMBERED: usize = 100;

/// The users.
pub(super) struct Users {
    hashes: BTreeMap<String, Hash>,
    /// For what is remembered; nobody knows it.
    key: hmac::Key,
    right: Mutex<HashSet<[u8; 32]>>,
    /// One comparison at a time.
    turn: Semaphore,
}

impl Users {
    pub(super) fn new(hashes: BTreeMap<String, Hash>) -> Result<Self, String> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())
            .map_err(|_| "the system has no random numbers".to_owned())?;
        Ok(Self { hashes, key, right: Mutex::default(), turn: Semaphore::new(1) })
    }

    /// Whether everybody may ask.
    pub(super) fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    /// Whether the value of an `Authorization` header is that of a user (RFC 7617).
    pub(super) async fn know(&self, authorization: &[u8]) -> bool {
        let Some((name, password)) = credentials(authorization) else { return false };
        let Some((hash, is_user)) = self.hash_of(&name) else { return false };
        let digest = self.digest(&[name.as_bytes(), hash.0.as_bytes(), password.as_bytes()]);
        let right = || self.right.lock().unwrap_or_else(PoisonError::into_inner);
        if is_user && right().contains(&digest) {
            return true;
        }
        // The semaphore is never closed.
        let Ok(_turn) = self.turn.acquire().await else { return false };
        if is_user && right().contains(&digest) {
            return true;
        }
        let hash = hash.0.clone();
        let compared = tokio::task::spawn_blocking(move || bcrypt::verify(password.as_bytes(), &hash)).await;
        let is_right = is_user && matches!(compared, Ok(Ok(true)));
        if is_right {
            let mut right = right();
            if right.len() >= REMEMBERED {
                right.clear();
            }
            right.insert(digest);
        }
        is_right
    }

    /// A user's hash; that of somebody else, always the same, where there is no such user.
    fn hash_of(&self, name: &str) -> Option<(&Hash, bool)> {
        if let Some(hash) = self.hashes.get(name) {
            return Some((hash, true));
        }
        let [first, second, ..] = self.digest(&[name.as_bytes()]);
        let which = usize::from(u16::from_be_bytes([first, second])) % self.hashes.len().max(1);
        self.hashes.values().nth(which).map(|hash| (hash, false))
    }

    fn digest(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.key);
        for part in parts {
            context.update(&part.len().to_be_bytes());
            context.update(part);
        }
        let mut digest = [0; 32];
        digest.copy_from_slice(context.sign().as_ref());
        digest
    }
}

/// Name and password.
fn credentials(authorization: &[u8]) -> Option<(String, String)> {
    let (scheme, encoded) = std::str::from_utf8(authorization).ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(BASE64_STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (name, password) = decoded.split_once(':')?;
    Some((name.to_owned(), password.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// "fox" with the least cost that there is.
    fn users() -> Users {
        let hash = |password| Hash(bcrypt::hash(password, 4).unwrap());
        Users::new([("alice".to_owned(), hash("fox")), ("bob".to_owned(), hash("owl"))].into()).unwrap()
    }

    fn know(users: &Users, plain: &str) -> bool {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let header = format!("Basic {}", BASE64_STANDARD.encode(plain));
        runtime.block_on(users.know(header.as_bytes()))
    }

    #[test]
    fn passwords_are_compared_and_what_was_right_is_remembered() {
        let users = users();
        for _ in 0..2 {
            assert!(know(&users, "alice:fox") && know(&users, "bob:owl"));
            for wrong in ["alice:owl", "alice:", "alice", ":", "carol:fox", "carol:owl", "alice:fox\0"] {
                assert!(!know(&users, wrong), "{wrong}");
            }
        }
        assert_eq!(users.right.lock().unwrap().len(), 2);
    }

    #[test]
    fn what_is_remembered_is_bounded_and_forgetting_does_no_harm() {
        let users = users();
        users.right.lock().unwrap().extend((0..REMEMBERED).map(|number| [number as u8; 32]));
        assert!(know(&users, "alice:fox") && know(&users, "alice:fox"));
        assert_eq!(users.right.lock().unwrap().len(), 1);
    }

    #[test]
    fn somebody_else_is_compared_with_a_users_hash_always_the_same() {
        let users = users();
        for name in ["carol", "dave", ""] {
            let (hash, is_user) = users.hash_of(name).unwrap();
            assert!(!is_user);
            assert_eq!(users.hash_of(name).unwrap().0, hash);
        }
        assert!(users.hash_of("alice").unwrap().1);
    }

    #[test]
    fn other_schemes_and_garbage_are_nobody() {
        for text in ["", "Basic", "Basic !!", "Bearer YTpi", "Basic /w==", "basic YQ=="] {
            assert_eq!(credentials(text.as_bytes()), None, "{text}");
        }
        assert_eq!(credentials(b"BASIC YTpiOmM="), Some(("a".to_owned(), "b:c".to_owned())));
    }
}

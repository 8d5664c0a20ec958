//! rustls in a program that has its symbols: what gives clear text is inlined into optimised programs, but not what enciphers
//! and deciphers, since that is called by way of a table: the methods of its traits `MessageEncrypter` and `MessageDecrypter`
//! (rustls 0.23, src/crypto/cipher.rs).

use super::Role;

/// The methods, in both ways in which the compiler writes names
/// (<https://doc.rust-lang.org/rustc/symbol-mangling/index.html>), and what they do.
const METHODS: [([&str; 2], Role, Option<Role>); 2] = [
    (
        ["..MessageDecrypter$GT$7decrypt17h", "16MessageDecrypter7decrypt"],
        Role::RustDecrypts,
        Some(Role::RustDecrypted),
    ),
    (["..MessageEncrypter$GT$7encrypt17h", "16MessageEncrypter7encrypt"], Role::RustEncrypts, None),
];

/// What a function does, by its symbol, and what tells that it has.
pub(super) fn roles(symbol: &str) -> Option<(Role, Option<Role>)> {
    // What stands for a cipher before there is one, and only fails.
    const NONE: &str = "InvalidMessage";
    let (_, begins, ends) = METHODS.iter().find(|([legacy, v0], ..)| {
        // Legacy names end in a hash, and "E".
        const HASH: usize = 16 + 1;
        let of_rustls = |before: &str| before.contains("rustls") && !before.contains(NONE);
        match symbol.strip_prefix("_R") {
            Some(path) => path.strip_suffix(v0).is_some_and(of_rustls),
            None => symbol.rsplit_once(legacy).is_some_and(|(before, hash)| {
                before.starts_with("_ZN") && hash.len() == HASH && of_rustls(before)
            }),
        }
    })?;
    Some((*begins, *ends))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_told_by_their_symbols() {
        let decrypts = Some((Role::RustDecrypts, Some(Role::RustDecrypted)));
        let encrypts = Some((Role::RustEncrypts, None));
        for (symbol, found) in [
            (
                "_ZN111_$LT$rustls..crypto..ring..tls13..Tls13MessageDecrypter$u20$as$u20$rustls..crypto..cipher..\
                 MessageDecrypter$GT$7decrypt17h0123456789abcdefE",
                decrypts,
            ),
            (
                "_RNvXs3_NtNtNtCs44UcDpYKeQn_6rustls6crypto4ring5tls13NtB5_21Tls13MessageDecrypterNtNtB9_6cipher\
                 16MessageDecrypter7decrypt",
                decrypts,
            ),
            (
                "_ZN108_$LT$rustls..crypto..aws_lc_rs..tls12..GcmMessageEncrypter$u20$as$u20$rustls..crypto..cipher..\
                 MessageEncrypter$GT$7encrypt17h0123456789abcdefE",
                encrypts,
            ),
            (
                "_RNvXs1_NtNtNtCs44UcDpYKeQn_6rustls6crypto4ring5tls12NtB5_19GcmMessageEncrypterNtNtB9_6cipher\
                 16MessageEncrypter7encrypt",
                encrypts,
            ),
            // How long it would be; another trait's; what is within; another crate's.
            (
                "_RNvXs1_NtNtNtCs44UcDpYKeQn_6rustls6crypto4ring5tls12NtB5_19GcmMessageEncrypterNtNtB9_6cipher\
                 16MessageEncrypter21encrypted_payload_len",
                None,
            ),
            (
                "_ZN111_$LT$rustls..crypto..ring..quic..PacketKey$u20$as$u20$rustls..quic..PacketKey$GT$\
                 15decrypt_in_place17h0123456789abcdefE",
                None,
            ),
            (
                "_ZN111_$LT$rustls..crypto..ring..tls13..Tls13MessageDecrypter$u20$as$u20$rustls..crypto..cipher..\
                 MessageDecrypter$GT$7decrypt28_$u7b$$u7b$closure$u7d$$u7d$17h0123456789abcdefE",
                None,
            ),
            ("_RNvXs3_Cs44UcDpYKeQn_5otherNtB5_1DNtB9_16MessageDecrypter7decrypt", None),
            (
                "_ZN108_$LT$rustls..crypto..cipher..InvalidMessageDecrypter$u20$as$u20$rustls..crypto..cipher..\
                 MessageDecrypter$GT$7decrypt17h0123456789abcdefE",
                None,
            ),
            ("SSL_read", None),
        ] {
            assert_eq!(roles(symbol), found, "{symbol}");
        }
    }
}

//! Segments that look like identifiers, each on its own: numbers, UUIDs, hex or base64-like ids, dates, e-mail addresses.

/// What stands for many values.
const PLACEHOLDERS: [&str; 6] = ["{id}", "{uuid}", "{date}", "{hash}", "{email}", "{var}"];

/// What a segment is folded to, where it looks like an identifier, or is a placeholder already.
pub(super) fn kind(segment: &str) -> Option<&'static str> {
    if segment.starts_with('{') {
        return PLACEHOLDERS.into_iter().find(|placeholder| *placeholder == segment);
    }
    let bytes = segment.as_bytes();
    let digits = bytes.iter().filter(|byte| byte.is_ascii_digit()).count();
    if digits == 0 {
        return is_email(segment).then_some("{email}");
    }
    if digits == bytes.len() || (digits + 1 == bytes.len() && bytes[0] == b'-') {
        return Some("{id}");
    }
    if is_uuid(bytes) {
        return Some("{uuid}");
    }
    if is_date(bytes) {
        return Some("{date}");
    }
    if is_hex(bytes) || is_base32(bytes, digits) || is_base64(bytes) {
        return Some("{hash}");
    }
    is_email(segment).then_some("{email}")
}

fn is_uuid(bytes: &[u8]) -> bool {
    bytes.len() == 36
        && bytes.iter().enumerate().all(|(index, byte)| match index {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

/// `2026-11`, `2026-11-22`, perhaps with a time after `T` (RFC 3339).
fn is_date(bytes: &[u8]) -> bool {
    let date = bytes.iter().take(10).enumerate().all(|(index, byte)| match index {
        4 | 7 => *byte == b'-',
        _ => byte.is_ascii_digit(),
    });
    date && (matches!(bytes.len(), 7 | 10) || bytes.get(10) == Some(&b'T'))
}

/// Eight hex digits or more, perhaps after `0x`.
fn is_hex(bytes: &[u8]) -> bool {
    let bytes = bytes.strip_prefix(b"0x").unwrap_or(bytes);
    bytes.len() >= 8 && bytes.iter().all(u8::is_ascii_hexdigit)
}

/// 20 letters and digits or more without a break, with three digits or more: ULID, KSUID, CUID and their like.
fn is_base32(bytes: &[u8], digits: usize) -> bool {
    bytes.len() >= 20 && digits >= 3 && bytes.iter().all(u8::is_ascii_alphanumeric)
}

/// 16 characters or more of base64's alphabets, upper and lower case and digits among them, and no words: a slug has
/// hyphens, or one case alone.
fn is_base64(bytes: &[u8]) -> bool {
    bytes.len() >= 16
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_=+".contains(byte))
        && bytes.iter().any(u8::is_ascii_uppercase)
        && bytes.iter().any(u8::is_ascii_lowercase)
}

fn is_email(segment: &str) -> bool {
    let parts = segment.split_once('@').or_else(|| segment.split_once("%40"));
    parts.is_some_and(|(user, host)| !user.is_empty() && host.contains('.') && !host.starts_with('.'))
}

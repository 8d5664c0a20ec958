//! Where among HTTP/2's frames (RFC 9113, section 4.1) a direction of a connection stands.

/// A place in one word: what comes next, and how much of it.
///
/// Of a payload the lower 24 bits are how many bytes are left; of a header that came in part, its length as far as it
/// came. 0 is an unknown place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Place(pub u32);

impl Place {
    /// Not known.
    pub const UNKNOWN: Self = Self(0);
    /// At a frame's first byte.
    pub const START: Self = Self(Self::HEADER);
    /// At the first byte of the client's preface (section 3.4).
    pub const PREFACE: Self = Self(Self::PAYLOAD + 24);

    /// In a header.
    pub const HEADER: u32 = 1 << 30;
    /// In a payload.
    pub const PAYLOAD: u32 = 2 << 30;
    /// Of DATA.
    pub const DATA: u32 = 1 << 28;
    /// The padding's length comes first.
    pub const PADDED: u32 = 1 << 29;
    /// The bits that count.
    pub const COUNT: u32 = (1 << 24) - 1;
    /// Where how many bytes of a header came is, in four bits.
    pub const HAVE: u32 = 24;

    /// How long a frame's header is.
    pub const HEADER_LEN: u32 = 9;
    /// How much of it tells a payload's length, and after that its kind.
    const LENGTH_LEN: u32 = 3;

    /// How many bytes come before the next frame's header: such that records hold, and after them such of DATA, which
    /// they don't. None where that isn't known yet.
    #[must_use]
    pub fn rest(self) -> Option<(u32, u32)> {
        let Self(place) = self;
        let count = place & Self::COUNT;
        let have = place >> Self::HAVE & 15;
        let header = match place & (Self::HEADER | Self::PAYLOAD) {
            Self::HEADER if have == 0 => return Some((0, 0)),
            Self::HEADER if have > Self::LENGTH_LEN => Self::HEADER_LEN.checked_sub(have)?,
            Self::PAYLOAD => 0,
            _ => return None,
        };
        // Whether it is padded may not be known yet.
        if place & Self::DATA != 0 && header > 4 {
            return None;
        }
        let held = match place & (Self::DATA | Self::PADDED) {
            0 => count,
            Self::DATA => 0,
            _ => count.min(1),
        };
        Some((header + held, count - held))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_of_a_frame_is_known_once_its_length_and_kind_are() {
        const COUNT: u32 = 500;
        let header = |have: u32, more: u32| Place(Place::HEADER | have << Place::HAVE | more);
        for (place, rest) in [
            (Place::UNKNOWN, None),
            (Place::START, Some((0, 0))),
            (Place::PREFACE, Some((24, 0))),
            (header(3, COUNT), None),
            (header(4, COUNT), Some((505, 0))),
            (header(4, COUNT | Place::DATA), None),
            (header(5, COUNT | Place::DATA), Some((4, 500))),
            (header(8, COUNT | Place::DATA | Place::PADDED), Some((2, 499))),
            (Place(Place::PAYLOAD | Place::DATA | COUNT), Some((0, 500))),
            (Place(Place::PAYLOAD | Place::DATA | Place::PADDED | COUNT), Some((1, 499))),
            (Place(Place::PAYLOAD | COUNT), Some((500, 0))),
        ] {
            assert_eq!(place.rest(), rest, "{place:x?}");
        }
    }
}

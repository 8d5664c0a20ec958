//! Frames from any bytes.

use proptest::prelude::*;

use super::*;

/// A server's direction that has begun.
fn server() -> Half {
    let mut half = Half::server();
    half.step(&[0, 0, 0, SETTINGS, 0, 0, 0, 0, 0]);
    half
}

/// What a half tells of bytes in these pieces, as text, with neighbouring octets of a body put together.
fn told(mut half: Half, pieces: &[&[u8]]) -> Vec<String> {
    let mut facts: Vec<String> = Vec::new();
    let mut body: Option<(u32, u64)> = None;
    let mut portions = 0;
    for piece in pieces {
        let mut rest = *piece;
        while !rest.is_empty() {
            let step = half.step(rest);
            assert!(step.read > 0 && step.read <= rest.len());
            portions += step.read;
            rest = &rest[step.read..];
            match step.fact {
                Fact::Data { stream, octets, end } => {
                    let before = body.take().map_or(0, |(_, before)| before);
                    if end {
                        facts.push(format!("end of {stream} with {}", before + octets));
                    } else {
                        body = Some((stream, before + octets));
                    }
                }
                Fact::Nothing | Fact::Lost => {}
                other => facts.push(format!("{other:?} after {body:?}")),
            }
        }
    }
    assert_eq!(portions, pieces.iter().map(|piece| piece.len()).sum::<usize>());
    facts.push(format!("lost: {}", half.is_lost()));
    facts
}

#[test]
fn hostile_sizes_hold_little() {
    let mut half = server();
    // A header block that never ends, in frames of the largest size.
    let mut bytes = vec![0xff, 0xff, 0xff, HEADERS, 0, 0, 0, 0, 1];
    bytes.extend(vec![0; 1 << 20]);
    for _ in 0..40 {
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            rest = &rest[half.step(rest).read..];
        }
        assert!(half.held.len() <= LONGEST_BLOCK);
        assert!(half.block.as_ref().is_none_or(|block| block.bytes.len() <= LONGEST_BLOCK));
        bytes = vec![0; 1 << 20];
    }
    // Settings without end.
    let mut half = server();
    let mut rest = &[vec![0x0f, 0xff, 0xfc, SETTINGS, 0, 0, 0, 0, 0], vec![1; 1 << 20]].concat()[..];
    while !rest.is_empty() {
        rest = &rest[half.step(rest).read..];
    }
    assert!(half.held.len() <= LONGEST_PAYLOAD);
}

#[test]
fn what_was_not_captured_is_passed_over_within_a_payload_alone() {
    let frame = |kind, len: u8| [0, 0, len, kind, 0, 0, 0, 0, 1];
    for (kind, survives) in [(DATA, true), (HEADERS, true), (0x55, true)] {
        for missing in 0_u64..25 {
            let mut half = server();
            half.step(&frame(kind, 20));
            half.skip(missing);
            assert_eq!(half.is_lost(), missing > 20 || !survives, "{kind} {missing}");
        }
    }
    let mut half = server();
    half.step(&frame(DATA, 20)[..4]);
    half.skip(1);
    assert!(half.is_lost());
}

proptest! {
    #[test]
    fn pieces_tell_what_the_whole_tells(
        bytes in prop::collection::vec((0_u8..11, any::<u8>(), 0_u32..4, prop::collection::vec(any::<u8>(), 0..30)), 0..12),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 2),
        client in any::<bool>(),
    ) {
        let mut all = if client { PREFACE.to_vec() } else { Vec::new() };
        all.extend([0, 0, 0, SETTINGS, 0, 0, 0, 0, 0]);
        for (kind, flags, stream, payload) in bytes {
            all.extend([0, 0, payload.len() as u8, kind, flags & 0x2d]);
            all.extend(stream.to_be_bytes());
            all.extend(payload);
        }
        let half = || if client { Half::client() } else { Half::server() };
        let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(all.len() + 1)).collect();
        at.sort_unstable();
        let pieces = [&all[..at[0]], &all[at[0]..at[1]], &all[at[1]..]];
        prop_assert_eq!(told(half(), &pieces), told(half(), &[&all]));
    }

    #[test]
    fn no_bytes_are_too_strange(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..10)) {
        for mut half in [Half::client(), Half::server(), server(), Half::joined()] {
            for piece in &pieces {
                half.find(piece, piece.len() as u32);
                let mut rest = &piece[..];
                while !rest.is_empty() {
                    rest = &rest[half.step(rest).read..];
                }
                half.skip(piece.len() as u64 * 3);
            }
        }
    }
}

//! The examples of RFC 7541, appendix C, and what happens where something was missed.

use proptest::prelude::*;

use super::*;

type Pairs = Vec<(String, String)>;
type Texts = &'static [(&'static str, &'static str)];

fn pairs(fields: &[(&str, &str)]) -> Pairs {
    fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// The fields of a block, unknown ones as `?`.
fn decode(decoder: &mut Decoder, block: &[u8]) -> Result<Pairs, Broken> {
    let mut fields = Vec::new();
    decoder.decode(block, |field| {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        fields.push(match field {
            Field::Known(name, value) => (text(name), text(value)),
            Field::Unknown => ("?".to_owned(), "?".to_owned()),
        });
    })?;
    Ok(fields)
}

fn all() -> Decoder {
    Decoder::new(Beyond::Nothing, |_| true)
}

/// Blocks, and what they and the table after them hold.
fn check(mut decoder: Decoder, blocks: &[(&str, Texts, Texts, usize)]) {
    for (block, fields, table, size) in blocks {
        assert_eq!(decode(&mut decoder, &bytes(block)).unwrap(), pairs(fields), "{block}");
        assert_eq!(decoder.table.texts(), (pairs(table), *size), "{block}");
    }
}

const FIRST: &[(&str, &str)] =
    &[(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "www.example.com")];
const SECOND: &[(&str, &str)] = &[
    (":method", "GET"),
    (":scheme", "http"),
    (":path", "/"),
    (":authority", "www.example.com"),
    ("cache-control", "no-cache"),
];
const THIRD: &[(&str, &str)] = &[
    (":method", "GET"),
    (":scheme", "https"),
    (":path", "/index.html"),
    (":authority", "www.example.com"),
    ("custom-key", "custom-value"),
];
const AUTHORITY: (&str, &str) = (":authority", "www.example.com");
const NO_CACHE: (&str, &str) = ("cache-control", "no-cache");
const CUSTOM: (&str, &str) = ("custom-key", "custom-value");

#[test]
fn integers_c_1() {
    assert_eq!(Reader(&[0x0a]).integer(5), Ok(10));
    assert_eq!(Reader(&[0x1f, 0x9a, 0x0a]).integer(5), Ok(1337));
    assert_eq!(Reader(&[0x2a]).integer(8), Ok(42));
    assert_eq!(Reader(&[0x1f, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]).integer(5), Err(Broken));
}

#[test]
fn literals_c_2() {
    check(
        all(),
        &[(
            "400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572",
            &[("custom-key", "custom-header")],
            &[("custom-key", "custom-header")],
            55,
        )],
    );
    check(all(), &[("040c 2f73 616d 706c 652f 7061 7468", &[(":path", "/sample/path")], &[], 0)]);
    check(all(), &[("1008 7061 7373 776f 7264 0673 6563 7265 74", &[("password", "secret")], &[], 0)]);
    check(all(), &[("82", &[(":method", "GET")], &[], 0)]);
}

#[test]
fn requests_c_3_and_c_4() {
    check(
        all(),
        &[
            ("8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d", FIRST, &[AUTHORITY], 57),
            ("8286 84be 5808 6e6f 2d63 6163 6865", SECOND, &[NO_CACHE, AUTHORITY], 110),
            (
                "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
                THIRD,
                &[CUSTOM, NO_CACHE, AUTHORITY],
                164,
            ),
        ],
    );
    check(
        all(),
        &[
            ("8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff", FIRST, &[AUTHORITY], 57),
            ("8286 84be 5886 a8eb 1064 9cbf", SECOND, &[NO_CACHE, AUTHORITY], 110),
            (
                "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
                THIRD,
                &[CUSTOM, NO_CACHE, AUTHORITY],
                164,
            ),
        ],
    );
}

const DATE: (&str, &str) = ("date", "Mon, 21 Oct 2013 20:13:21 GMT");
const LATER: (&str, &str) = ("date", "Mon, 21 Oct 2013 20:13:22 GMT");
const LOCATION: (&str, &str) = ("location", "https://www.example.com");
const PRIVATE: (&str, &str) = ("cache-control", "private");
const GZIP: (&str, &str) = ("content-encoding", "gzip");
const COOKIE: (&str, &str) = ("set-cookie", "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1");

fn small() -> Decoder {
    let mut decoder = all();
    decoder.table.resize(256);
    decoder
}

#[test]
fn responses_with_eviction_c_5_and_c_6() {
    for blocks in [
        [
            "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
            "4803 3330 37c1 c0bf",
            "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d 54c0 5a04 677a 6970 7738 666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049 5541 5851 5745 4f49 553b 206d 6178 2d61 6765 3d33 3630 303b 2076 6572 7369 6f6e 3d31",
        ],
        [
            "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
            "4883 640e ffc1 c0bf",
            "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 3d50 07",
        ],
    ] {
        check(
            small(),
            &[
                (
                    blocks[0],
                    &[(":status", "302"), PRIVATE, DATE, LOCATION],
                    &[LOCATION, DATE, PRIVATE, (":status", "302")],
                    222,
                ),
                (
                    blocks[1],
                    &[(":status", "307"), PRIVATE, DATE, LOCATION],
                    &[(":status", "307"), LOCATION, DATE, PRIVATE],
                    222,
                ),
                (
                    blocks[2],
                    &[(":status", "200"), PRIVATE, LATER, LOCATION, GZIP, COOKIE],
                    &[COOKIE, GZIP, LATER],
                    215,
                ),
            ],
        );
    }
}

/// What is left of blocks that were overwritten but for the fields that matter, read with as small a table.
#[test]
fn overwritten_fields_are_as_long_and_keep_their_places() {
    let kept = |name: Option<&[u8]>, value: &[u8]| match name {
        Some(b":status") => value.len(),
        Some(b"location") => "https://".len(),
        _ => 0,
    };
    for blocks in [
        [
            "4803 3330 3258 0770 7269 7661 7465 6e17 6874 7470 733a 2f2f 7777 772e 6578 616d 706c 652e 636f 6d",
            "4803 3330 37c0 bf",
        ],
        ["4882 6402 5885 aec3 771a 4b6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3", "4883 640e ffc0 bf"],
    ] {
        let (mut redactor, mut reader) = (Decoder::new(Beyond::Unknown, |_| true), small());
        let mut read = |block: &str| {
            let mut block = bytes(block);
            let len = block.len();
            redactor.redact(&mut block, kept).unwrap();
            assert_eq!(block.len(), len);
            decode(&mut reader, &block).unwrap()
        };
        let first = read(blocks[0]);
        let name = |index: usize| first[index].0.as_str();
        assert_eq!((name(0), name(1), name(2)), (":status", "cache-control", "location"));
        assert_eq!(first[0].1, "302");
        assert_eq!((first[1].1.len(), first[2].1.len()), ("private".len(), LOCATION.1.len()));
        assert!(!first[1].1.contains(char::is_alphabetic) || first[1].1 == "xxxxxxx");
        assert!(first[2].1.starts_with("https://") && !first[2].1.contains("example"));
        assert_eq!(
            read(blocks[1]),
            [(":status".to_owned(), "307".to_owned()), first[1].clone(), first[2].clone()]
        );
    }
}

#[test]
fn a_table_of_a_size_that_was_not_allowed_is_refused() {
    // 4096, and 4097.
    assert_eq!(decode(&mut all(), &bytes("3fe11f82")), Ok(pairs(&[(":method", "GET")])));
    assert_eq!(decode(&mut all(), &bytes("3fe21f82")), Err(Broken));
    let mut decoder = all();
    decoder.allow(65_536);
    assert!(decode(&mut decoder, &bytes("3fe21f82")).is_ok());
}

#[test]
fn who_joins_midway_knows_what_came_since_and_guesses_nothing() {
    let mut decoder = Decoder::new(Beyond::Unknown, |_| true);
    let known = (":authority".to_owned(), "www.example.com".to_owned());
    let unknown = ("?".to_owned(), "?".to_owned());
    assert_eq!(decode(&mut decoder, &bytes("82be")).unwrap()[1], unknown);
    decode(&mut decoder, &bytes("8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d")).unwrap();
    assert_eq!(decode(&mut decoder, &bytes("bebf")).unwrap(), [known.clone(), unknown.clone()]);
    // A name that was never seen, and a value that is said: an entry whose place is known.
    assert_eq!(decode(&mut decoder, &bytes("7f00 0178")).unwrap(), std::slice::from_ref(&unknown));
    assert_eq!(decode(&mut decoder, &bytes("bebfc0")).unwrap(), [unknown.clone(), known, unknown.clone()]);
    decoder.forget();
    assert_eq!(decode(&mut decoder, &bytes("be")).unwrap(), [unknown]);
}

#[test]
fn fields_that_nobody_asks_for_keep_their_place_and_size() {
    let mut decoder = Decoder::new(Beyond::Nothing, |name| name == b":authority");
    let blocks = ["8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d", "8286 84be 5808 6e6f 2d63 6163 6865"];
    for block in blocks {
        assert_eq!(decode(&mut decoder, &bytes(block)).unwrap(), pairs(&[AUTHORITY]));
    }
    assert_eq!(decode(&mut decoder, &bytes("bebf")).unwrap(), pairs(&[AUTHORITY]));
    assert_eq!(decoder.table.texts().1, 110);
    // A new value under the name of such an entry.
    decode(&mut decoder, &bytes("7e01 78")).unwrap();
    assert_eq!(decoder.table.texts().1, 110 + 13 + 1 + 32);
}

#[test]
fn a_table_has_an_end_whatever_the_peers_agree_on() {
    let mut decoder = all();
    decoder.allow(u32::MAX);
    // The largest size, and then entries without end.
    decode(&mut decoder, &bytes("3fe0ffffff0f")).unwrap();
    let mut entry = vec![0x40, 1, b'x', 0x7f, 0x81, 0x07];
    entry.extend([b'y'; 1024]);
    for _ in 0..1000 {
        decode(&mut decoder, &entry).unwrap();
    }
    let (entries, size) = decoder.table.texts();
    assert!(size <= 64 << 10 && entries.len() < 64);
    // What was dropped for want of room is unknown.
    assert_eq!(decode(&mut decoder, &bytes("ff80 05")).unwrap(), pairs(&[("?", "?")]));
}

/// Fields of a few names and any values, often said again.
fn fields() -> impl Strategy<Value = Vec<(Vec<u8>, Vec<u8>)>> {
    let name = prop::sample::select(vec![":path", ":status", "cookie", "x-one", "x-two", "set-cookie"]);
    let value = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..60),
        prop::collection::vec(b'a'..b'f', 0..2),
        "[ -~]{0,80}".prop_map(String::into_bytes),
    ];
    prop::collection::vec((name.prop_map(|name| name.as_bytes().to_vec()), value), 1..12)
}

/// A literal that enters the table, in Huffman's code.
fn coded(name: &[u8], value: &[u8]) -> Vec<u8> {
    let string = |text: &[u8]| {
        let code = huffman::hide(text, text.len(), 0);
        let mut string = loona_hpack::encoder::encode_integer(code.len(), 7);
        string[0] |= 0x80;
        [string, code].concat()
    };
    [vec![0x40], string(name), string(value)].concat()
}

fn read(decoder: &mut Decoder, block: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut fields = Vec::new();
    let read = decoder.decode(block, |field| {
        if let Field::Known(name, value) = field {
            fields.push((name.to_vec(), value.to_vec()));
        }
    });
    assert_eq!(read, Ok(()));
    fields
}

proptest! {
    #[test]
    fn what_another_encoder_writes_is_read(blocks in prop::collection::vec(fields(), 1..20)) {
        let (mut encoder, mut decoder) = (loona_hpack::Encoder::new(), all());
        for fields in blocks {
            let block = encoder.encode(fields.iter().map(|(name, value)| (&name[..], &value[..])));
            prop_assert_eq!(read(&mut decoder, &block), fields);
        }
    }

    #[test]
    fn another_decoder_reads_what_was_overwritten(
        blocks in prop::collection::vec((fields(), any::<bool>()), 1..20),
    ) {
        let kept = |name: Option<&[u8]>, value: &[u8]| if name == Some(b":status") { value.len() } else { 0 };
        let mut decoder = loona_hpack::Decoder::new();
        let (mut redactor, mut ours) = (Decoder::new(Beyond::Unknown, |_| true), all());
        for (fields, in_code) in blocks {
            let mut block = if in_code {
                fields.iter().flat_map(|(name, value)| coded(name, value)).collect()
            } else {
                loona_hpack::Encoder::new().encode(fields.iter().map(|(name, value)| (&name[..], &value[..])))
            };
            // Each block is of an encoder with an empty table: what entered it before is pushed out.
            block.splice(0..0, [0x20, 0x3f, 0xe1, 0x1f]);
            redactor.redact(&mut block, kept).unwrap();
            let others = decoder.decode(&block).expect("the other reads it");
            prop_assert_eq!(&read(&mut ours, &block), &others);
            prop_assert_eq!(others.len(), fields.len());
            for ((name, value), (original, truth)) in others.iter().zip(&fields) {
                prop_assert_eq!((name, value.len()), (original, truth.len()));
                prop_assert!(name != b":status" || value == truth);
            }
        }
    }

    #[test]
    fn a_block_cut_anywhere_is_broken_or_shorter(cut in 0_usize..34) {
        let block = bytes("8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf");
        let mut decoder = all();
        decode(&mut decoder, &bytes("8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff")).unwrap();
        decode(&mut decoder, &bytes("8286 84be 5886 a8eb 1064 9cbf")).unwrap();
        if let Ok(fields) = decode(&mut decoder, &block[..cut.min(block.len())]) {
            let whole = pairs(THIRD);
            prop_assert_eq!(&fields[..], &whole[..fields.len()]);
        }
    }

    #[test]
    fn no_block_is_too_strange(
        blocks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..10),
        joined in any::<bool>(),
    ) {
        let mut decoder = Decoder::new(if joined { Beyond::Unknown } else { Beyond::Nothing }, |_| true);
        for block in blocks {
            let _ = decode(&mut decoder, &block);
        }
    }
}

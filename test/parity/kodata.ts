/** Parity cases: what lies in `kodata/`, and the times it gets. */
import { HELLO } from "../helpers/go.ts";
import type { Case } from "../helpers/oracle.ts";

const LONG = "a-directory-name-of-forty-characters-here";

/** Names that need a prefix, or a PAX record, in a tar header. */
const LONG_NAMES = {
  // 100 bytes hold it; a prefix holds it; only a record holds it.
  [`kodata/${"x".repeat(80)}`]: "fits\n",
  [`kodata/${LONG}/${LONG}/${LONG}/file`]: "prefix\n",
  [`kodata/${LONG}/${LONG}/${LONG}/${LONG}/file`]: "prefix over 155\n",
  [`kodata/${"y".repeat(100)}`]: "no slash to split at\n",
  [`kodata/deep/${"z".repeat(200)}`]: "name over 100\n",
  [`kodata/${"größe-".repeat(20)}/ä`]: "not ASCII and long\n",
};

export const KODATA_CASES: readonly Case[] = [
  { name: "kodata: one file", files: { ...HELLO, "kodata/f": "data\n" } },
  {
    name: "kodata: nested folders, sorted as a walk sorts them",
    files: {
      ...HELLO,
      "kodata/a/b": "1",
      "kodata/a-b/c": "2",
      "kodata/a.txt": "3",
      "kodata/a/b.d/e": "4",
      "kodata/B": "5",
      "kodata/_": "6",
      "kodata/ä": "7",
      "kodata/z/y/x/w/v": "8",
    },
  },
  {
    name: "kodata: blanks, quotes and letters of every kind in names",
    files: {
      ...HELLO,
      "kodata/with blank": "1",
      "kodata/'quoted' \"twice\"": "2",
      "kodata/größe/naïve.txt": "3",
      "kodata/日本語": "4",
      "kodata/\u{1F600}": "5",
      "kodata/\uFFFF": "6",
      "kodata/back\\slash": "7",
      "kodata/tab\tnewline\n": "8",
      "kodata/=+,;": "9",
    },
  },
  { name: "kodata: names too long for a tar header", files: { ...HELLO, ...LONG_NAMES } },
  {
    name: "kodata: links to a file, a folder, a link and upward inside kodata",
    files: {
      ...HELLO,
      "kodata/real/file": "content\n",
      "kodata/real/deep/other": "other\n",
      "kodata/to-file": { link: "real/file" },
      "kodata/to-folder": { link: "real" },
      "kodata/to-link": { link: "to-file" },
      "kodata/sub/up": { link: "../real/deep" },
    },
  },
  {
    name: "kodata: empty folders and empty files",
    files: { ...HELLO, "kodata/empty": null, "kodata/a/b/c": null, "kodata/nothing": "" },
  },
  { name: "kodata: the folder itself is empty", files: { ...HELLO, kodata: null } },
  {
    name: "kodata: modes and dotfiles",
    files: {
      ...HELLO,
      "kodata/run.sh": { executable: "#!/bin/sh\n" },
      "kodata/private": { text: "secret\n", mode: 0o600 },
      "kodata/read-only": { text: "read\n", mode: 0o444 },
      "kodata/.hidden": "1",
      "kodata/.git-not/config": "2",
      "kodata/..two": "3",
      "kodata/.gitignore": "*\n",
    },
  },
  {
    name: "kodata: sizes around a block of tar, and larger than one of gzip",
    files: {
      ...HELLO,
      "kodata/511": "x".repeat(511),
      "kodata/512": "x".repeat(512),
      "kodata/513": "x".repeat(513),
      "kodata/large": pattern(5 * 1024 * 1024 + 7),
    },
  },
  {
    name: "kodata: a git repository, with HEAD copied in",
    commit: true,
    files: { ...HELLO, "kodata/HEAD": "ref: refs/heads/main\n" },
  },
  {
    name: "kodata: KO_DATA_DATE_EPOCH dates the entries and their history",
    env: { KO_DATA_DATE_EPOCH: "1700000000" },
    files: { ...HELLO, "kodata/a/f": "data\n", "kodata/link": { link: "a" } },
  },
  { name: "epochs: SOURCE_DATE_EPOCH alone", env: { SOURCE_DATE_EPOCH: "1700000000" } },
  { name: "epochs: both", env: { SOURCE_DATE_EPOCH: "1700000001", KO_DATA_DATE_EPOCH: "1600000000" } },
  { name: "epochs: zero", env: { SOURCE_DATE_EPOCH: "0", KO_DATA_DATE_EPOCH: "0" } },
  {
    name: "epochs: past what eleven octal digits hold",
    env: { SOURCE_DATE_EPOCH: "8589934592", KO_DATA_DATE_EPOCH: "8589934592" },
    files: { ...HELLO, "kodata/f": "data\n" },
  },
  {
    name: "epochs: an index",
    base: "index",
    args: [".", "--platform=linux/amd64,linux/arm64"],
    env: { SOURCE_DATE_EPOCH: "1700000001", KO_DATA_DATE_EPOCH: "1600000000" },
  },
  {
    name: "windows: kodata with links and long names",
    base: "windows",
    args: [".", "--platform=windows/amd64:10.0.20348.3207"],
    files: {
      ...HELLO,
      ...LONG_NAMES,
      "kodata/sub/file": "content\n",
      "kodata/empty": null,
      "kodata/to-file": { link: "sub/file" },
      "kodata/to-folder": { link: "sub" },
    },
  },
];

/** Bytes that a compressor neither swallows nor chokes on, the same each time. */
function pattern(length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  let state = 1;
  for (let i = 0; i < length; i++) {
    state = (state * 1103515245 + 12345) % 0x80000000;
    bytes[i] = (state >> 16) % 64;
  }
  return bytes;
}

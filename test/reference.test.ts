import { describe, expect, test } from "bun:test";
import { KoError } from "../lib/errors.ts";
import {
  formatName,
  formatDaemonReference,
  formatReference,
  formatRepository,
  parseReference,
  parseRepository,
  splitHost,
  whyBadHost,
  whyBadPath,
  whyBadTag,
} from "../lib/reference.ts";
import { rejectionOf } from "./helpers/failures.ts";
import { askGo, listOf } from "./helpers/go-fixtures.ts";

const HEX = "0123456789abcdef".repeat(4);
const DIGEST = `sha256:${HEX}` as const;

/** Names on which we agree with go-containerregistry: both refuse, or both read the same. */
const SAME: readonly string[] = [
  "alpine",
  "alpine:3.20",
  "library/alpine",
  "me/app",
  "me/app:v1",
  "a",
  "a/b/c/d/e:f",
  "docker.io/alpine",
  "docker.io/library/alpine:3",
  "docker.io/me/app",
  "index.docker.io/alpine",
  "registry-1.docker.io/alpine",
  "gcr.io/distroless/static:nonroot",
  "gcr.io/distroless/static",
  "gcr.io/a",
  "gcr.io",
  "gcr.io:latest",
  "localhost/app",
  "localhost/app:v1",
  "localhost:5000/app",
  "localhost:5000/app:v1",
  "127.0.0.1:5000/app",
  "[::1]:5000/app:v1",
  "[::1]/app",
  "[2001:db8::1]:443/a/b",
  "GCR.io/app",
  "Registry.Example.com:5000/app",
  "example.com:65535/app",
  "example.com.:443/app",
  "a-b.example.com/app",
  "my_host.example/app",
  "host/path.with.dots/and-dashes/and__underscores",
  "gcr.io/a//b",
  "gcr.io/a..b",
  "gcr.io/-a",
  "gcr.io/a-",
  "gcr.io/_/.",
  `alpine@${DIGEST}`,
  `alpine:3.20@${DIGEST}`,
  `gcr.io/app@${DIGEST}`,
  `localhost:5000/app@${DIGEST}`,
  `localhost:5000/app:v1@${DIGEST}`,
  `app:UPPER_tag-1.2@${DIGEST}`,
  `gcr.io/app:${"t".repeat(128)}`,
  `gcr.io/${"p".repeat(255)}`,
  // Refused.
  "",
  ":",
  "/",
  "@",
  "alpine:",
  "alpine: ",
  "alpine:a b",
  "alpine:a/b:",
  `alpine:${"t".repeat(129)}`,
  `gcr.io/${"p".repeat(256)}`,
  "Alpine",
  "gcr.io/App",
  "gcr.io/app name",
  "gcr.io/äpp",
  "gcr.io/app\n",
  "gcr.io/",
  "gcr.io/:v1",
  "example.com:port/app",
  "https://gcr.io/app",
  "http://localhost:5000/app",
  "user:pass@gcr.io/app",
  "user@gcr.io/app",
  "alpine@sha256:123",
  "alpine@sha256:",
  "alpine@",
  `alpine@${DIGEST.toUpperCase()}`,
  `alpine@sha256:${HEX.slice(1)}g`,
  `alpine@${DIGEST}@${DIGEST}`,
  `@${DIGEST}`,
  `alpine@md5:${HEX.slice(32)}`,
  "app:tag:tag",
];

/** Where we differ, and why. */
const OTHER: readonly (readonly [string, "only ours" | "only theirs"])[] = [
  // Registries, and our digests, are SHA-256 everywhere.
  [`alpine@sha512:${HEX}${HEX}`, "only theirs"],
  // A host without a repository is more likely than an image of Docker Hub that is called localhost.
  ["localhost", "only theirs"],
  ["localhost:5000", "only theirs"],
  // A scheme is no host with an empty port, and a path of the file system no host at all.
  ["oci://gcr.io/app", "only theirs"],
  ["ko://example.com/app", "only theirs"],
  ["../app", "only theirs"],
];

const names = [...SAME, ...OTHER.map(([name]) => name)];
const answers = await askGo("ggcr", { Names: names });
const needsGo = test.skipIf(answers === undefined);
const theirs: ReadonlyMap<string, unknown> = new Map(
  listOf(answers, "Names").map((answer, i) => [names[i] ?? "", answer]),
);

/** Our reading in the fixture's form; null if we refuse. */
function ours(name: string): unknown {
  try {
    const reference = parseReference(name);
    const { host, path, tag, digest } = reference;
    return { Host: host, Path: path, Identifier: digest ?? tag, Name: formatName(reference) };
  } catch (error) {
    if (error instanceof KoError) return null;
    throw error;
  }
}

describe("parseReference()", () => {
  needsGo.each(SAME.map((name) => [name] as const))("reads %j as go-containerregistry does", (name) => {
    expect(ours(name)).toEqual(theirs.get(name));
  });

  needsGo.each(OTHER)("differs from go-containerregistry in %j: %s", (name, who) => {
    expect([ours(name) !== null, theirs.get(name) !== null]).toEqual([who === "only ours", who === "only theirs"]);
  });

  test("keeps tag and digest", () => {
    expect(parseReference(`localhost:5000/a/b:v1@${DIGEST}`)).toEqual({
      host: "localhost:5000",
      path: "a/b",
      tag: "v1",
      digest: DIGEST,
    });
  });

  test("has no tag where only a digest was given", () => {
    expect(parseReference(`alpine@${DIGEST}`)).toEqual({
      host: "index.docker.io",
      path: "library/alpine",
      tag: undefined,
      digest: DIGEST,
    });
  });

  test.each([
    [
      "gcr.io/Web",
      'Cannot read "gcr.io/Web" as an image name: "Web" has an upper-case letter, repository names are lower case',
    ],
    ["alpine:", 'Cannot read "alpine:" as an image name: the tag is empty'],
    [
      `a:${"t".repeat(129)}`,
      `Cannot read "a:${"t".repeat(129)}" as an image name: the tag has 129 characters, the limit is 128`,
    ],
    [
      "alpine:-x",
      'Cannot read "alpine:-x" as an image name: the tag "-x" is invalid: a tag consists of letters, digits, "_", "." and "-", and begins with a letter, a digit or "_"',
    ],
    [
      "alpine@sha256:12",
      'Cannot read "alpine@sha256:12" as an image name: "sha256:12" is not a digest, wanted sha256: and 64 lower-case hex digits',
    ],
    ["gcr.io/", 'Cannot read "gcr.io/" as an image name: there is no repository name after the host'],
    ["", 'Cannot read "" as an image name: the repository name is empty'],
    [
      "ex ample.com/a",
      'Cannot read "ex ample.com/a" as an image name: "ex ample.com" is not a host name with an optional port',
    ],
    [
      "gcr.io/a b",
      'Cannot read "gcr.io/a b" as an image name: "a b" may hold lower-case letters, digits, ".", "_", "-" and "/"',
    ],
  ])("says why it refuses %j", (name, message) => {
    expect(() => parseReference(name)).toThrow(new KoError(message));
  });

  test.each([
    "user:CANARY@gcr.io/app",
    "https://user:CANARY@gcr.io/app:v1",
    "user:CAN@CANARY@gcr.io/app",
    `CANARY@gcr.io/app@${DIGEST}`,
  ])("does not show a password: %s", async (name) => {
    const message = String(await rejectionOf(() => parseReference(name)));
    expect(message).toContain("as an image name");
    expect(message).not.toContain("CAN");
  });
});

describe("parseRepository()", () => {
  test.each([
    ["gcr.io/a/b", { host: "gcr.io", path: "a/b" }],
    ["alpine", { host: "index.docker.io", path: "library/alpine" }],
    ["docker.io/me/app", { host: "index.docker.io", path: "me/app" }],
    ["localhost:5000/app", { host: "localhost:5000", path: "app" }],
  ])("reads %s", (name, expected) => {
    expect(parseRepository(name)).toEqual(expected);
  });

  test("refuses a tag, which is not its business", () => {
    expect(() => parseRepository("gcr.io/app:v1")).toThrow(
      new KoError(
        'Cannot read "gcr.io/app:v1" as an image name: "app:v1" may hold lower-case letters, digits, ".", "_", "-" and "/"',
      ),
    );
  });

  test("shows the whole that a part was taken from", () => {
    expect(() => parseRepository("gcr.io/App", "gcr.io/App:v1")).toThrow('Cannot read "gcr.io/App:v1"');
  });
});

describe("splitHost()", () => {
  test.each([
    ["gcr.io/a", { host: "gcr.io", path: "a" }],
    ["gcr.io", { host: undefined, path: "gcr.io" }],
    ["localhost", { host: "localhost", path: "" }],
    ["localhost:5000", { host: "localhost:5000", path: "" }],
    ["localhost/a", { host: "localhost", path: "a" }],
    ["localhosts/a", { host: undefined, path: "localhosts/a" }],
    ["me/a.b:c", { host: undefined, path: "me/a.b:c" }],
    ["", { host: undefined, path: "" }],
  ])("splits %j", (text, expected) => {
    expect(splitHost(text)).toEqual(expected);
  });
});

describe("whyBadHost()", () => {
  test.each([
    "gcr.io",
    "localhost",
    "a",
    "127.0.0.1:5000",
    "[::1]:80",
    "[::1]",
    "my_host.example",
    "A.b",
    "h:1",
    "h:65535",
    "example.com.:443",
  ])("takes %s", (host) => {
    expect(whyBadHost(host)).toBeUndefined();
  });

  test.each([
    "",
    "-a",
    "a-",
    "a b",
    "a:",
    "a:b",
    "a:123456",
    "a:65536",
    "10.0.0.999",
    "a/b",
    "user@h",
    "::1",
    "[::1",
    "a%20b",
    "ä.example",
    "a..",
    "..",
  ])("refuses %j", (host) => {
    expect(whyBadHost(host)).toBe(`"${host}" is not a host name with an optional port`);
  });
});

describe("whyBadTag()", () => {
  test.each(["v1", "_", "A.b-c_d", "0", "t".repeat(128)])("takes %s", (tag) => {
    expect(whyBadTag(tag)).toBeUndefined();
  });

  test.each(["", ".a", "-a", "a b", "a:b", "a/b", "ä", "a\n", "t".repeat(129)])("refuses %j", (tag) => {
    expect(whyBadTag(tag)).toBeString();
  });
});

describe("whyBadPath()", () => {
  test.each(["a", "a/b", "a.b", "a_b", "a__b", "a-b", "a---b", "0/1", "p".repeat(255)])("takes %s", (path) => {
    expect(whyBadPath(path)).toBeUndefined();
  });

  test.each(["", "A", "a/", "/a", "a//b", "-a", "a-", "a..b", "a___b", "a.-b", "a:b", "a b", "ä", "p".repeat(256)])(
    "refuses %j",
    (path) => {
      expect(whyBadPath(path)).toBeString();
    },
  );
});

describe("formatRepository(), formatReference(), formatDaemonReference() and formatName()", () => {
  test.each([
    ["alpine", "index.docker.io/library/alpine:latest", "index.docker.io/library/alpine:latest"],
    ["gcr.io/a:v1", "gcr.io/a:v1", "gcr.io/a:v1"],
    [`gcr.io/a:v1@${DIGEST}`, `gcr.io/a:v1@${DIGEST}`, `gcr.io/a@${DIGEST}`],
    [`gcr.io/a@${DIGEST}`, `gcr.io/a@${DIGEST}`, `gcr.io/a@${DIGEST}`],
  ])("write %s in full", (text, full, name) => {
    const reference = parseReference(text);
    expect([formatReference(reference), formatName(reference)]).toEqual([full, name]);
    expect(full).toStartWith(formatRepository(reference));
  });

  test.each([
    ["app:v1", "docker.io/library/app:v1"],
    ["index.docker.io/me/app:v1", "docker.io/me/app:v1"],
    [`localhost:5000/app@${DIGEST}`, `localhost:5000/app@${DIGEST}`],
  ])("write %s as daemons do", (text, name) => {
    expect(formatDaemonReference(parseReference(text))).toBe(name);
  });

  test("give what reads as the same again", () => {
    const reference = parseReference(`docker.io/app:v1@${DIGEST}`);
    expect(parseReference(formatReference(reference))).toEqual(reference);
  });
});

import { describe, expect, test } from "bun:test";
import { findMovable, FRAGMENTS, nameOf, textFor, whyBadFragment } from "../lib/yaml-fragments.ts";
import { describeError, KoError } from "../lib/errors.ts";

const DIGEST = `sha256:${"a".repeat(64)}`;

/** The text of each part, or the error. */
function parts(reference: string, tags: readonly string[] = ["latest"]): unknown {
  const one = (value: string): string => {
    try {
      return textFor(value, { reference, digest: DIGEST, tags });
    } catch (error) {
      if (!(error instanceof KoError)) throw error;
      return describeError(error).trimEnd();
    }
  };
  return Object.fromEntries(
    ["", ...FRAGMENTS].map((part) => [part, one(part === "" ? "ko://a/b" : `ko://a/b#${part}`)]),
  );
}

describe("textFor()", () => {
  test("splits the reference of a push", () => {
    const reference = `registry.example.com:5000/me/web@${DIGEST}`;
    expect(parts(reference)).toEqual({
      "": reference,
      repository: "registry.example.com:5000/me/web",
      registry: "registry.example.com:5000",
      path: "me/web",
      tag: "latest",
      digest: DIGEST,
      image: "registry.example.com:5000/me/web:latest",
    });
  });

  test.each<[string, string, readonly string[], object]>([
    ["a reference with a tag", `r.io/web:v1@${DIGEST}`, ["v1", "v2"], { tag: "v1", repository: "r.io/web" }],
    ["--tag-only", "r.io/web:v1", ["v1"], { tag: "v1", digest: DIGEST, image: "r.io/web:v1" }],
    ["several tags", `r.io/web@${DIGEST}`, ["v1", "v2"], { tag: "v1", image: "r.io/web:v1" }],
    [
      "Docker Hub",
      `me/web@${DIGEST}`,
      ["latest"],
      { registry: "index.docker.io", path: "me/web", repository: "me/web" },
    ],
    ["a daemon", "ko.local/web:abc", ["latest"], { tag: "abc", repository: "ko.local/web", registry: "ko.local" }],
    [
      "no tag",
      `r.io/web@${DIGEST}`,
      [],
      { tag: 'Error: Cannot use "ko://a/b#tag": the image has no tag\n  Use -t TAG.', digest: DIGEST },
    ],
  ])("of %s", (_, reference, tags, wanted) => {
    expect(parts(reference, tags)).toMatchObject(wanted);
  });
});

describe("whyBadFragment()", () => {
  test.each([
    ["ko://a/b", undefined],
    ["ko://a/b#digest", undefined],
    ["ko://a/b#digets", '"#digets" is no part, the nearest is "#digest"; the parts of a reference are #repository'],
    ["ko://a/b#", '"#" is no part; the parts of a reference are #repository'],
    ["ko://a/b#tag#digest", '"#tag#digest" is no part'],
  ])("of %s", (value, why) => {
    if (why === undefined) expect(whyBadFragment(value)).toBeUndefined();
    else expect(whyBadFragment(value)).toStartWith(why);
    expect(nameOf(value)).toBe("ko://a/b");
  });
});

test("a tag can move unless the digest, or the whole reference, is beside it", () => {
  expect(findMovable(["ko://a#tag", "ko://a#repository", "ko://b#tag", "ko://b#digest", "ko://c#image"])).toEqual([
    "ko://a#tag",
    "ko://c#image",
  ]);
  expect(findMovable(["ko://a#tag", "ko://a"])).toEqual([]);
});

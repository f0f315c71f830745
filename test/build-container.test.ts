import { describe, expect, test } from "bun:test";
import { describeContainer, explainContainer, joinImageWords, renderImage } from "../lib/build-container.ts";
import { type ImageKey, type ImageWord, type ImageWords, readImageFlag } from "../lib/config-image.ts";
import { describeError, KoError } from "../lib/errors.ts";
import { NO_CONTAINER_SETTINGS } from "../lib/image-config.ts";
import { rejectionOf } from "./helpers/failures.ts";

const words = (level: Readonly<Partial<Record<ImageKey, readonly string[]>>>): ImageWords => {
  const found: Partial<Record<ImageKey, readonly ImageWord[]>> = {};
  for (const key of ["env", "labels", "ports", "cmd", "user"] as const) {
    const texts = level[key];
    if (texts !== undefined) found[key] = readImageFlag(key, "f", texts.length === 0 ? [""] : texts);
  }
  return found;
};

function show(joined: ImageWords): unknown {
  return Object.fromEntries(
    Object.entries(joined).map(([key, all]) => [
      key,
      all.map((word) => (word.key === undefined ? word.value : `${word.key}=${word.value}`)),
    ]),
  );
}

describe("joinImageWords()", () => {
  test.each<[string, readonly Parameters<typeof words>[0][], unknown]>([
    ["no level", [], {}],
    ["empty levels", [{}, {}], {}],
    [
      "pairs by key",
      [{ env: ["A=1"] }, { env: ["B=2", "A=3"] }, { env: ["C=4", "B=5"] }],
      { env: ["C=4", "B=2", "A=1"] },
    ],
    ["no pairs", [{ labels: [] }, { labels: ["a=b"] }], { labels: ["a=b"] }],
    ["lists: the first", [{ cmd: ["a"] }, { cmd: ["b", "c"] }], { cmd: ["a"] }],
    ["an empty list is one", [{ ports: [] }, { ports: ["80"] }], { ports: [] }],
    ["texts: the first", [{}, { user: ["1"] }, { user: ["2"] }], { user: ["1"] }],
  ])("joins %s", (_, levels, expected) => {
    expect(show(joinImageWords(levels.map(words)))).toEqual(expected);
  });
});

describe("renderImage()", () => {
  const git = { dir: "/d", hasChanges: true };
  const render = (value: string) => async (all: readonly ImageWord[]) => ({
    texts: all.map((word) => word.value.replace("{{x}}", value)),
    reads: all.map(() => []),
    hasTime: false,
    git,
  });

  test("checks values that were templates, and says what they depend on", async () => {
    const image = await renderImage(words({ ports: ["{{x}}", "53/udp"], env: ["A={{x}}"] }), render("80"));
    expect(image).toMatchObject({
      container: { ...NO_CONTAINER_SETTINGS, ports: ["80/tcp", "53/udp"], env: new Map([["A", "80"]]) },
      git,
    });
    expect(image.values.map(({ key, text }) => [key, text])).toEqual([
      ["env", "80"],
      ["ports", "80/tcp"],
      ["ports", "53/udp"],
    ]);
  });

  test("names each value that cannot be", async () => {
    const error = await rejectionOf(renderImage(words({ ports: ["{{x}}"], user: ["{{x}}"] }), render("a b")));
    expect(error).toBeInstanceOf(KoError);
    expect(describeError(error)).toBe(
      'Error: Cannot use f: "a b" is not a user, wanted USER or USER:GROUP, names or numbers\n' +
        'Error: Cannot use f: "a b" is not a port, wanted a port such as 8080, 8080/tcp or 53/udp',
    );
  });
});

describe("explainContainer()", () => {
  const of = (container: Partial<typeof NO_CONTAINER_SETTINGS>, annotations: Readonly<Record<string, string>> = {}) =>
    describeContainer({ ...NO_CONTAINER_SETTINGS, ...container }, new Map(Object.entries(annotations)));

  test.each([
    ["nothing", of({}), of({}), undefined],
    ["the same", of({ cmd: ["a"] }), of({ cmd: ["a"] }), undefined],
    ["a change", of({ cmd: ["a"] }), of({ cmd: ["a", "b"] }), "cmd of the image changed"],
    ["a new one", of({}), of({ workdir: "/" }), "workdir of the image is set now"],
    ["one that is gone", of({}, { a: "b" }), of({}), "annotations of the image is not set any more"],
    [
      "another order of variables",
      of({
        env: new Map([
          ["A", "1"],
          ["B", "2"],
        ]),
      }),
      of({
        env: new Map([
          ["B", "2"],
          ["A", "1"],
        ]),
      }),
      "env of the image changed",
    ],
  ])("tells %s", (_, before, now, expected) => {
    expect(explainContainer(before, now)).toBe(expected);
  });

  test("has no values in its record", () => {
    expect(JSON.stringify(of({ env: new Map([["TOKEN", "geheim"]]), user: "root" }))).not.toMatch(/geheim|root|TOKEN/);
  });
});

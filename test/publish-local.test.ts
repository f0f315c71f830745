import { describe, expect, test } from "bun:test";
import type { TagRule } from "../lib/publish-destination.ts";
import { describeError } from "../lib/errors.ts";
import { type LocalPlace, localPublisher, type LoadResult } from "../lib/publish-local.ts";
import type { Log } from "../lib/log.ts";
import { hexOf, type Platform } from "../lib/oci.ts";
import { noTiming } from "../lib/timing.ts";
import { rejectionOf } from "./helpers/failures.ts";
import { NEW, randomImage, randomIndex } from "./helpers/images.ts";

interface World {
  readonly publisher: ReturnType<typeof localPublisher>;
  /** What was loaded: a digest and names. */
  readonly loaded: (readonly [string, readonly string[]])[];
  readonly said: string[];
}

function makeWorld(
  tags: TagRule = { names: ["latest"], only: false },
  place: { readonly platform?: Platform; readonly outcome?: LoadResult } = {},
): World {
  const { platform = { os: "linux", architecture: "arm64" }, outcome = "loaded" } = place;
  const loaded: World["loaded"] = [];
  const said: string[] = [];
  const log: Log = { info: (text) => void said.push(text), warn: (text) => void said.push(text), debug: () => {} };
  const found: LocalPlace = {
    platform: async () => platform,
    load: async (image, names) => {
      loaded.push([image.descriptor.digest, names]);
      return outcome;
    },
    [Symbol.asyncDispose]: async () => {},
  };
  return { publisher: localPublisher({ timing: noTiming, tags, place: Promise.resolve(found), log }), loaded, said };
}

describe("localPublisher()", () => {
  test.each<[string, TagRule, string, more?: readonly string[]]>([
    ["the default tag", { names: ["latest"], only: false }, "HEX"],
    ["two tags, in their order", { names: ["v2", "v1"], only: false }, "HEX", ["v2", "v1"]],
    ["--tag-only", { names: ["v1"], only: true }, "v1"],
    ["--tag-only of the default tag", { names: ["latest"], only: true }, "latest"],
    ["one tag", { names: ["dev"], only: false }, "HEX", ["dev"]],
    ["the default tag and another", { names: ["latest", "v1"], only: false }, "HEX", ["latest", "v1"]],
    ["--tag-only of two tags", { names: ["v2", "v1"], only: true }, "v2", ["v1"]],
    ["no tag", { names: [], only: false }, "HEX"],
  ])("loads under the content's tag and %s", async (_what, tags, shown, more = []) => {
    const { publisher, loaded, said } = makeWorld(tags);
    const image = await randomImage();
    const name = "ko.local/example.com/app";
    const hex = hexOf(image.descriptor.digest);
    const reference = `${name}:${shown.replace("HEX", hex)}`;
    expect(await publisher.open(name).publish(image, NEW)).toEqual({ reference, all: [reference] });
    expect(loaded).toEqual([[image.descriptor.digest, [hex, ...tags.names].map((tag) => `${name}:${tag}`)]]);
    expect(said).toEqual([`Loaded ${reference}`, ...more.map((tag) => `Tagged ${name}:${tag}`)]);
  });

  test("says when nothing had to be sent", async () => {
    const { publisher, said } = makeWorld({ names: ["v1"], only: true }, { outcome: "present" });
    await publisher.open("ko.local/app").publish(await randomImage(), NEW);
    expect(said).toEqual(["Already there: ko.local/app:v1"]);
  });

  test("says that an image that was there has a new name", async () => {
    const { publisher, said } = makeWorld({ names: ["dev"], only: false }, { outcome: "tagged" });
    const image = await randomImage();
    const { wasThere } = await publisher.open("ko.local/app").publish(image, NEW);
    const content = `ko.local/app:${hexOf(image.descriptor.digest)}`;
    expect([wasThere, ...said]).toEqual([true, `Tagged ${content}`, "Tagged ko.local/app:dev"]);
  });

  test("loads of an index the image that the target runs, with a notice", async () => {
    const { publisher, loaded, said } = makeWorld();
    const index = await randomIndex();
    const own = index.children[1];
    if (own === undefined) throw new Error("one image only");
    const reference = `ko.local/app:${hexOf(own.descriptor.digest)}`;
    expect(await publisher.open("ko.local/app").publish(index, NEW)).toEqual({
      reference,
      all: [reference],
    });
    expect(loaded).toEqual([[own.descriptor.digest, [reference, "ko.local/app:latest"]]]);
    expect(said).toEqual(["ko.local/app: of 2 platforms only linux/arm64 is loaded", `Loaded ${reference}`]);
  });

  test("refuses an index without an image for the target", async () => {
    const { publisher, loaded } = makeWorld(undefined, { platform: { os: "linux", architecture: "s390x" } });
    const error = await rejectionOf(publisher.open("ko.local/app").publish(await randomIndex(), NEW));
    expect(describeError(error)).toBe(
      "Error: Cannot load for linux/s390x: the image is for linux/amd64, linux/arm64/v8\n" +
        "  Add linux/s390x to --platform.",
    );
    expect(loaded).toEqual([]);
  });
});

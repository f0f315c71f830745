import { describe, expect, test } from "bun:test";
import { readdirSync, readFileSync, statSync } from "node:fs";
import type { Destination } from "../lib/publish-destination.ts";
import { messageOf } from "../lib/errors.ts";
import { silentLog } from "../lib/log.ts";
import { createPublisher } from "../lib/pipeline-resources.ts";
import { type Published, writeImageRefs } from "../lib/publish.ts";
import { noTiming } from "../lib/timing.ts";
import { randomImage, randomIndex } from "./helpers/images.ts";
import { hostAt } from "./helpers/hostat.ts";
import { rejectionOf } from "./helpers/rejection.ts";
import { writeTree } from "./helpers/tree.ts";

const PUBLISHED: readonly Published[] = [
  { reference: "r/a@sha256:1", all: ["r/a@sha256:1"] },
  { reference: "r/b@sha256:2", all: ["r/b@sha256:2", "r/b@sha256:3"] },
];
const TEXT = "r/a@sha256:1\nr/b@sha256:2\nr/b@sha256:3\n";

describe("writeImageRefs()", () => {
  test("writes a line for each image, and no other file", async () => {
    using tree = writeTree({});
    await writeImageRefs(tree.at("refs"), PUBLISHED);
    expect(readdirSync(tree.path)).toEqual(["refs"]);
    expect(readFileSync(tree.at("refs"), "utf8")).toBe(TEXT);
  });

  test("names the flag when it fails", async () => {
    using tree = writeTree({ dir: null });
    const error = await rejectionOf(writeImageRefs(tree.at("dir"), PUBLISHED));
    expect(messageOf(error)).toBe(`Cannot write --image-refs "${tree.at("dir")}"`);
  });
});

const DESTINATION: Destination = {
  repository: "r.example/me",
  naming: "md5",
  tags: ["latest"],
  tagOnly: false,
  target: undefined,
  layoutPath: undefined,
  tarball: undefined,
  ociArchive: undefined,
  imageRefs: undefined,
  insecureHosts: [],
  compression: { kind: "gzip", level: 1 },
  warnings: [],
};

function publisherFor(destination: Partial<Destination>, cwd: string): ReturnType<typeof createPublisher> {
  return createPublisher({
    destination: { ...DESTINATION, ...destination },
    openRegistry: () => Promise.reject(new RangeError("no registry is wanted")),
    openPlace: () => Promise.reject(new RangeError("no local target is wanted")),
    log: silentLog,
    timing: noTiming,
    host: hostAt(cwd),
  });
}

describe("createPublisher() without a registry", () => {
  test.each<[Partial<Destination>, string]>([
    [{ tags: [] }, "r.example/me/app@DIGEST"],
    [{ tags: ["latest"] }, "r.example/me/app:latest@DIGEST"],
    [{ tags: ["v1", "v2"] }, "r.example/me/app:v1@DIGEST"],
    [{ tags: ["v1"], tagOnly: true }, "r.example/me/app:v1"],
  ])("says what it would have published: %j", async (destination, expected) => {
    const image = await randomImage();
    const { reference, all } = await (
      await publisherFor(destination, "/")
    ).publish(image, "r.example/me/app", { isReused: false });
    const whole = expected.replace("DIGEST", image.descriptor.digest);
    expect({ reference, all }).toEqual({ reference: whole, all: [whole] });
  });

  test("lists an index and its images", async () => {
    const index = await randomIndex();
    const { all } = await (await publisherFor({}, "/")).publish(index, "r.example/me/app", { isReused: false });
    expect(all).toEqual([index, ...index.children].map((item) => `r.example/me/app@${item.descriptor.digest}`));
  });

  test.each(["layout", "layout/", "./layout//"])("names the layout %s as the user does", async (layoutPath) => {
    using tree = writeTree({});
    const index = await randomIndex();
    const { reference, all } = await (
      await publisherFor({ layoutPath }, tree.path)
    ).publish(index, "r.example/me/app", { isReused: false });
    const shown = layoutPath.replace(/\/+$/, "");
    expect(reference).toBe(`${shown}@${index.descriptor.digest}`);
    expect(all).toEqual([index, ...index.children].map((item) => `${shown}@${item.descriptor.digest}`));
    expect(statSync(tree.at("layout/index.json")).isFile()).toBe(true);
  });
});

import { describe, expect, test } from "bun:test";
import { noticeUnpinned } from "../lib/base-notice.ts";
import { makeCacheBox } from "./helpers/world-cache.ts";

const DIGEST = `sha256:${"0".repeat(64)}`;
const NOTICE =
  "Base gcr.io/a:b is not pinned: the same sources give another image when the tag moves. To pin it: ko base update";
const options = { cache: undefined, cwd: "/", now: new Date("2026-11-30T23:59:59Z") };

describe("noticeUnpinned()", () => {
  test.each<[string, readonly string[], readonly string[], string | undefined]>([
    ["a release", ["gcr.io/a:b"], ["latest", "v1.2.3"], NOTICE],
    ["a version without v", ["scratch", "gcr.io/a:b"], ["2026.11"], NOTICE],
    ["no version", ["gcr.io/a:b"], ["latest", "main", "v1", "abc1.2"], undefined],
    ["no tag", ["gcr.io/a:b"], [], undefined],
    ["a pinned base", [`gcr.io/a:b@${DIGEST}`], ["v1.2.3"], undefined],
    ["bases that are in no registry", ["scratch", "ko.builtin/static", "oci:dir:v1"], ["v1.2.3"], undefined],
  ])("%s", (_, bases, tags, wanted) => {
    expect(noticeUnpinned({ ...options, bases, tags })).toBe(wanted);
  });

  test("comes once a day for a base", async () => {
    using box = makeCacheBox();
    await using cache = box.open();
    const at = (time: string, base = "gcr.io/a:b"): boolean =>
      noticeUnpinned({ ...options, cache, bases: [base], tags: ["v1.2.3"], now: new Date(time) }) !== undefined;
    expect([at("2026-11-30T10:00:00Z"), at("2026-11-30T23:00:00Z"), at("2026-12-01T00:00:00Z")]).toEqual([
      true,
      false,
      true,
    ]);
    expect([at("2026-12-01T00:00:00Z", "gcr.io/c"), at("2026-12-01T00:00:00Z", "gcr.io/c")]).toEqual([true, false]);
  });
});

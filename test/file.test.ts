import { describe, expect, test } from "bun:test";
import { messageOf } from "../lib/errors.ts";
import { isBelow, isInside, look, lookAtLink, readChunks, readEntries, readNames, realPath } from "../lib/file.ts";
import { rejectionOf } from "./helpers/failures.ts";
import { writeTree } from "./helpers/world-folders.ts";

describe("isInside() and isBelow()", () => {
  test.each([
    ["/a", "/a", "itself"],
    ["/a/b", "/a", "below"],
    ["/a/..b", "/a", "below"],
    ["/a", "/", "below"],
    ["/", "/", "itself"],
    ["/ab", "/a", "outside"],
    ["/a", "/a/b", "outside"],
    ["/a/c", "/a/b", "outside"],
    ["/", "/a", "outside"],
    ["/a\\b", "/a", "outside"],
    ["C:\\a", "C:\\a", "itself"],
    ["c:\\A", "C:\\a", "itself"],
    ["C:\\a\\b", "C:\\a", "below"],
    ["C:/a/b", "C:\\a", "below"],
    ["C:\\a", "C:\\", "below"],
    ["C:\\a\\..b", "C:\\a", "below"],
    ["C:\\ab", "C:\\a", "outside"],
    ["C:\\a", "C:\\a\\b", "outside"],
    ["D:\\a\\b", "C:\\a", "outside"],
    ["\\\\host\\share\\a", "\\\\host\\share", "below"],
  ] as const)("%s is, seen from %s, %s", (path, folder, place) => {
    expect({ inside: isInside(path, folder), below: isBelow(path, folder) }).toEqual({
      inside: place !== "outside",
      below: place === "below",
    });
  });
});

describe("look(), lookAtLink(), realPath(), readNames() and readEntries()", () => {
  test("tell a file, a folder, a symlink and one that leads nowhere apart", () => {
    using tree = writeTree({
      file: "x",
      "dir/b": "",
      "dir/a": "",
      link: { link: "file" },
      broken: { link: "nowhere" },
    });
    const names = ["file", "dir", "link", "broken", "gone", "file/below"];
    const kind = (stats: ReturnType<typeof look>): string =>
      stats === undefined ? "none" : stats.isSymbolicLink() ? "link" : stats.isDirectory() ? "dir" : "file";
    expect(
      names.map((name) => {
        const path = tree.at(name);
        return [kind(look(path)), kind(lookAtLink(path)), realPath(path)?.slice(tree.path.length + 1)];
      }),
    ).toEqual([
      ["file", "file", "file"],
      ["dir", "dir", "dir"],
      ["file", "link", "file"],
      ["none", "link", undefined],
      ["none", "none", undefined],
      ["none", "none", undefined],
    ]);
    expect({ names: readNames(tree.at("dir")), entries: readEntries(tree.at("dir")).length }).toEqual({
      names: ["a", "b"],
      entries: 2,
    });
    expect([readNames(tree.at("file")), readEntries(tree.at("gone"))]).toEqual([[], []]);
  });
});

describe("readChunks()", () => {
  test.each([0, 1, 256 * 1024, 700_000])(
    "gives all of a file of %d bytes, in pieces that can be kept",
    async (size) => {
      const bytes = new Uint8Array(size).map((_, i) => i % 251);
      using tree = writeTree({ file: bytes });
      const pieces = await Array.fromAsync(readChunks(tree.at("file")));
      expect(Buffer.concat(pieces).equals(bytes)).toBe(true);
      expect(pieces.length).toBe(Math.ceil(size / (256 * 1024)));
    },
  );

  test("says what it is that cannot be read", async () => {
    using tree = writeTree({});
    const path = tree.at("gone");
    const read = (what?: string): Promise<unknown> =>
      rejectionOf(Array.fromAsync(readChunks(path, what === undefined ? {} : { what })));
    expect(messageOf(await read())).toStartWith(`Cannot read "${path}": ENOENT`);
    expect(messageOf(await read("the layer"))).toStartWith("Cannot read the layer: ENOENT");
  });

  test("stops when it is told to", async () => {
    using tree = writeTree({ file: "text" });
    const reason = new Error("enough");
    expect(await rejectionOf(Array.fromAsync(readChunks(tree.at("file"), { signal: AbortSignal.abort(reason) })))).toBe(
      reason,
    );
  });
});

import { describe, expect, test } from "bun:test";
import { lstatSync, readdirSync, readFileSync } from "node:fs";
import { KoError, messageOf, UsageError } from "../lib/errors.ts";
import { checkWritableFile, writeOutputFile } from "../lib/file.ts";
import { rejectionOf } from "./helpers/failures.ts";
import { writeTree } from "./helpers/world-folders.ts";

describe("checkWritableFile()", () => {
  test.each(["new", "old", "dir/new", "link", "/dev/null"])("takes %s, and leaves no trace", async (path) => {
    using tree = writeTree({ old: "x", dir: null, link: { link: "dir/real" } });
    const before = readdirSync(tree.path, { recursive: true });
    await checkWritableFile(path.startsWith("/") ? path : tree.at(path), "--timing");
    expect(readdirSync(tree.path, { recursive: true })).toEqual(before);
  });

  test.each([
    ["dir", "it is a folder"],
    ["nowhere/new", "the folder TREE/nowhere does not exist"],
    ["old/new", "the folder TREE/old does not exist"],
  ])("refuses %s", async (path, why) => {
    using tree = writeTree({ old: "x", dir: null });
    const error = await rejectionOf(checkWritableFile(tree.at(path), "--timing"));
    expect(error).toEqual(
      new UsageError(`Cannot write --timing "${tree.at(path)}": ${why.replace("TREE", tree.path)}`),
    );
  });
});

describe("writeOutputFile()", () => {
  test("writes the text, and no other file", async () => {
    using tree = writeTree({});
    await writeOutputFile(tree.at("out"), "text\n", "--timing");
    expect(readdirSync(tree.path)).toEqual(["out"]);
    expect(readFileSync(tree.at("out"), "utf8")).toBe("text\n");
  });

  test("replaces what was there, through a link that stays one", async () => {
    using tree = writeTree({
      "dir/real": "old and longer than what comes now, much longer\n".repeat(9),
      link: { link: "dir/real" },
    });
    await writeOutputFile(tree.at("link"), "text\n", "--timing");
    expect(readFileSync(tree.at("dir/real"), "utf8")).toBe("text\n");
    expect([lstatSync(tree.at("link")).isSymbolicLink(), readdirSync(tree.at("dir"))]).toEqual([true, ["real"]]);
  });

  test("writes to a pipe, and does not replace it", async () => {
    using tree = writeTree({});
    const fifo = tree.at("fifo");
    expect(Bun.spawnSync(["mkfifo", fifo]).exitCode).toBe(0);
    const reader = Bun.spawn(["cat", fifo]);
    await writeOutputFile(fifo, "text\n", "--timing");
    expect(await reader.stdout.text()).toBe("text\n");
    expect(lstatSync(fifo).isFIFO()).toBe(true);
  });

  test("leaves nothing behind when it fails, and says which file", async () => {
    using tree = writeTree({ dir: null });
    const error = await rejectionOf(writeOutputFile(tree.at("dir"), "text\n", "--timing"));
    expect(error).toBeInstanceOf(KoError);
    expect(messageOf(error)).toBe(`Cannot write --timing "${tree.at("dir")}"`);
    expect(readdirSync(tree.path)).toEqual(["dir"]);
  });
});

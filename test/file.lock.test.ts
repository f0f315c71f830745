import { describe, expect, test } from "bun:test";
import { readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { KoError } from "../lib/errors.ts";
import { withLock } from "../lib/file.ts";
import { makeFolder } from "./helpers/world-folders.ts";

const { signal } = new AbortController();
const module = join(import.meta.dir, "..", "lib", "file.ts");

/** A process that takes the lock, says so, and keeps it until it is ended. */
async function holdLock(folder: string, file: string): Promise<Bun.Subprocess> {
  const script = join(folder, "hold.ts");
  await writeFile(
    script,
    `import { withLock } from ${JSON.stringify(module)};
     await withLock(${JSON.stringify(file)}, async () => {
       console.log("held");
       await new Promise((resolve) => setInterval(resolve, 2 ** 30));
     }, { signal: new AbortController().signal });`,
  );
  const child = Bun.spawn([process.execPath, script], { stdio: ["ignore", "pipe", "inherit"] });
  for await (const _ of child.stdout) break;
  return child;
}

describe("withLock()", () => {
  test("lets one work at a time, in one process and in several, and leaves no file", async () => {
    await using folder = await makeFolder();
    const file = join(folder.path, "lock");
    const counter = join(folder.path, "counter");
    const script = join(folder.path, "count.ts");
    await writeFile(counter, "0");
    await writeFile(
      script,
      `import { withLock } from ${JSON.stringify(module)};
       import { readFile, writeFile } from "node:fs/promises";
       const { signal } = new AbortController();
       const add = () => withLock(${JSON.stringify(file)}, async () => {
         const value = Number(await readFile(${JSON.stringify(counter)}, "utf8"));
         await writeFile(${JSON.stringify(counter)}, String(value + 1));
       }, { signal });
       for (let i = 0; i < 10; i++) await Promise.all([add(), add()]);`,
    );
    const children = [0, 1, 2].map(() => Bun.spawn([process.execPath, script], { stdio: ["ignore", 2, 2] }));
    expect(await Promise.all(children.map((child) => child.exited))).toEqual([0, 0, 0]);
    expect(await readFile(counter, "utf8")).toBe("60");
    expect((await readdir(folder.path)).sort()).toEqual(["count.ts", "counter"]);
  });

  test("gives what the work gives, and lets go when it fails", async () => {
    await using folder = await makeFolder();
    const file = join(folder.path, "lock");
    const failed = withLock(file, () => Promise.reject(new RangeError("work")), { signal });
    expect(await failed.catch(String)).toBe("RangeError: work");
    expect(await withLock(file, async () => 42, { signal })).toBe(42);
  });

  test("is free again when the process that held it was killed", async () => {
    await using folder = await makeFolder();
    const file = join(folder.path, "lock");
    const holder = await holdLock(folder.path, file);
    holder.kill("SIGKILL");
    await holder.exited;
    expect(await withLock(file, async () => "free", { signal })).toBe("free");
    expect(await readdir(folder.path)).toEqual(["hold.ts"]);
  });

  test("gives up after a while, and at once when the run is interrupted", async () => {
    await using folder = await makeFolder();
    const file = join(folder.path, "lock");
    const holder = await holdLock(folder.path, file);
    try {
      const late = withLock(file, async () => "no", { signal, patience: 40 });
      expect(await late.catch((error: unknown) => error)).toEqual(
        new KoError(`Cannot lock "${file}": another process has held it for 0 seconds`, {
          hint: "Wait for the other ko to end, then try again",
          transient: true,
        }),
      );
      const controller = new AbortController();
      const interrupted = withLock(file, async () => "no", { signal: controller.signal });
      controller.abort(new KoError("interrupted"));
      expect(await interrupted.catch(() => "interrupted")).toBe("interrupted");
    } finally {
      holder.kill("SIGKILL");
      await holder.exited;
    }
  });

  test("fails where there is no folder for the file", async () => {
    await using folder = await makeFolder();
    const file = join(folder.path, "none", "lock");
    expect(await withLock(file, async () => "no", { signal }).catch(String)).toBe(`KoError: Cannot lock "${file}"`);
  });
});

import { describe, expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { CommandError } from "../lib/errors.ts";
import { createHost, type Host, Interrupted, type RunOptions, withSignal } from "../lib/host.ts";
import { errorOf, rejectionOf } from "./helpers/failures.ts";
import { writeTree } from "./helpers/world-folders.ts";
import { waitUntil } from "./helpers/world-programs.ts";

/** Made once: it listens to signals. */
const host: Host = createHost();
const PROGRAM = join(import.meta.dir, "helpers", "world-host.ts");

function textOf(data: Uint8Array): string {
  return new TextDecoder().decode(data);
}

/** `sh -c script` */
function shell(script: string, options: RunOptions = {}): ReturnType<Host["run"]> {
  return host.run(["sh", "-c", script], options);
}

/** A zombie counts as dead: whoever is pid 1 may take its time. */
function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return !/^\d+ \(.*\) [ZX]/s.test(readFileSync(`/proc/${pid}/stat`, "utf8"));
  } catch {
    return false;
  }
}

/** Waits until a signal that was sent has had its effect. */
async function untilDead(pid: number): Promise<void> {
  await waitUntil(() => !isAlive(pid));
}

/** Waits for what `pattern` finds in the text that comes in. */
function waitFor(pattern: RegExp): { readonly found: Promise<string>; readonly hear: (text: string) => void } {
  const { promise, resolve } = Promise.withResolvers<string>();
  let heard = "";
  return {
    found: promise,
    hear: (text) => {
      heard += text;
      const match = pattern.exec(heard)?.[1];
      if (match !== undefined) resolve(match);
    },
  };
}

describe("Host.run()", () => {
  test("gives what the program wrote, each stream for itself", async () => {
    const { code, stdout, stderr } = await shell("echo out; echo err >&2; echo out2");
    expect({ code, stdout: textOf(stdout), stderr }).toEqual({ code: 0, stdout: "out\nout2\n", stderr: "err\n" });
  });

  test("passes arguments as they are, without a shell", async () => {
    const { stdout } = await host.run(["printf", "%s|", "a b", "$HOME", "", "*", "'\"\n"]);
    expect(textOf(stdout)).toBe("a b|$HOME||*|'\"\n|");
  });

  test("gives the program exactly the environment it is told", async () => {
    const { stdout } = await host.run(["/usr/bin/env"], { env: { B: "2", A: "1=1", C: "" } });
    expect(textOf(stdout).split("\n").sort()).toEqual(["", "A=1=1", "B=2", "C="]);
  });

  test("gives the host's environment and folder unless told", async () => {
    using tree = writeTree({});
    const { stdout } = await shell('echo "$PATH"; pwd');
    expect(textOf(stdout)).toBe(`${host.env["PATH"]}\n${process.cwd()}\n`);
    expect(textOf((await host.run(["pwd"], { cwd: tree.path })).stdout)).toBe(`${tree.path}\n`);
  });

  test("looks for the program on the PATH of that environment", async () => {
    using tree = writeTree({ "bin/ko-test-program": { executable: "#!/bin/sh\necho stub\n" } });
    const { stdout } = await host.run(["ko-test-program"], { env: { PATH: tree.at("bin") } });
    expect(textOf(stdout)).toBe("stub\n");
  });

  test.each([0, 1, 100_000, 20_000_000])("feeds %d bytes to the program's standard input", async (size) => {
    const { stdout } = await host.run(["wc", "-c"], { stdin: new Uint8Array(size) });
    expect(Number(textOf(stdout))).toBe(size);
  });

  test("feeds a stream", async () => {
    const { stdout } = await host.run(["cat"], { stdin: new Blob(["one ", "two"]).stream() });
    expect(textOf(stdout)).toBe("one two");
  });

  test("gives nothing to read unless told", async () => {
    expect(textOf((await host.run(["wc", "-c"])).stdout).trim()).toBe("0");
  });

  test("does not mind a program that reads nothing of what it is fed", async () => {
    expect((await host.run(["true"], { stdin: new Uint8Array(10_000_000) })).code).toBe(0);
  });

  test("keeps bytes that are no text", async () => {
    const { stdout } = await host.run(["printf", "\\000\\377\\200"]);
    expect([...stdout]).toEqual([0, 255, 128]);
  });

  test("captures 50 MB of one stream while the other is full too", async () => {
    const half = "head -c 50000000 /dev/zero";
    const { stdout, stderr } = await shell(`${half} & ${half} >&2; wait`);
    expect([stdout.byteLength, stderr.length]).toEqual([50_000_000, 50_000_000]);
  });

  test("gives stderr to a listener as it comes, and captures it", async () => {
    using tree = writeTree({});
    const gate = tree.at("gate");
    const heard: string[] = [];
    // The program ends only after its first line was heard.
    const { stderr } = await shell(`echo one >&2; until [ -e '${gate}' ]; do sleep 0.01; done; printf 'grün' >&2`, {
      stderr: (text) => {
        heard.push(text);
        void Bun.write(gate, "");
      },
    });
    expect([heard.join(""), stderr]).toEqual(["one\ngrün", "one\ngrün"]);
    expect(heard[0]).toBe("one\n");
  });

  test("never gives a listener half a character", async () => {
    const heard: string[] = [];
    await shell("printf '\\303' >&2; sleep 0.05; printf '\\274' >&2", { stderr: (text) => void heard.push(text) });
    expect(heard.join("")).toBe("ü");
  });

  test.each<[string, readonly [string, ...string[]], RunOptions, string]>([
    ["a program that is not there", ["ko-no-such-program"], {}, "it is not installed, or not on PATH"],
    ["a path that is not there", ["/no/such/program"], {}, "it is not installed, or not on PATH"],
    ["a file that is no program", ["/etc/passwd"], {}, "EACCES: permission denied"],
    ["a folder that is not there", ["true"], { cwd: "/no/such" }, `its working directory "/no/such" does not exist`],
    ["a file as folder", ["true"], { cwd: "/etc/passwd" }, "ENOTDIR: not a directory"],
    ["a NUL in an argument", ["true", "a\0b"], {}, "The argument 'args[1]' must be a string without null bytes"],
  ])("fails for %s", async (_, argv, options, why) => {
    const error = await errorOf(host.run(argv, options), CommandError);
    expect(error.message).toStartWith(`Cannot run ${argv[0]}: ${why}`);
    expect([error.argv, error.code, error.signal, error.exitCode]).toEqual([argv, undefined, undefined, 1]);
  });

  test("says what to do about a missing program", async () => {
    expect((await errorOf(host.run(["ko-no-such-program"]), CommandError)).hint).toBe(
      "Install ko-no-such-program, or add its directory to PATH.",
    );
  });

  test("fails with the exit code and what was written to stderr", async () => {
    const { message, code, signal, stderr } = await errorOf(shell("echo no >&2; exit 7"), CommandError);
    expect({ message, code, signal, stderr }).toEqual({
      message: "Cannot run sh: exit code 7",
      code: 7,
      signal: undefined,
      stderr: "no\n",
    });
  });

  test("gives any exit code if so asked", async () => {
    const { code, stdout } = await shell("echo some; exit 7", { anyExitCode: true });
    expect([code, textOf(stdout)]).toEqual([7, "some\n"]);
  });

  test.each([false, true])("fails with the signal that ended the program (anyExitCode: %p)", async (anyExitCode) => {
    const { message, code, signal } = await errorOf(shell("kill -9 $$", { anyExitCode }), CommandError);
    expect({ message, code, signal }).toEqual({
      message: "Cannot run sh: ended by SIGKILL",
      code: undefined,
      signal: "SIGKILL",
    });
  });

  test("ends a program that writes too much, at once", async () => {
    const error = await errorOf(shell("echo why >&2; exec cat /dev/zero", { maxBytes: 100_000 }), CommandError);
    expect([error.message, error.stderr]).toEqual(["Cannot run sh: it wrote more than 100000 bytes", "why\n"]);
  });

  test("takes exactly as much as is allowed", async () => {
    const { stdout } = await host.run(["head", "-c", "100000", "/dev/zero"], { maxBytes: 100_000 });
    expect(stdout.byteLength).toBe(100_000);
  });

  test("keeps the end of a long stderr", async () => {
    const { stderr } = await shell("head -c 30000000 /dev/zero >&2; printf end >&2", { maxBytes: 10 });
    expect(stderr).toBe("\0\0\0\0\0\0\0end");
  });

  test("fails after the time it is given, and ends the program", async () => {
    const pid = waitFor(/(\d+)\n/);
    const work = shell("echo $$ >&2; exec sleep 300", { timeout: 100, stderr: pid.hear });
    expect((await errorOf(work, CommandError)).message).toBe("Cannot run sh: no answer within 0.1 s");
    await untilDead(Number(await pid.found));
  });

  test("does not count the time of a program that is fast enough", async () => {
    expect((await shell("exit 0", { timeout: 60_000 })).code).toBe(0);
  });

  test("ends the program and what it forked when the signal comes", async () => {
    const controller = new AbortController();
    const pid = waitFor(/(\d+)\n/);
    const work = shell("sleep 300 & echo $! >&2; wait", { signal: controller.signal, stderr: pid.hear });
    void pid.found.then(() => controller.abort(new Interrupted("SIGTERM")));
    expect(await rejectionOf(work)).toEqual(new Interrupted("SIGTERM"));
    await untilDead(Number(await pid.found));
  });

  test("does not start anything after the signal", async () => {
    using tree = writeTree({});
    const signal = AbortSignal.abort(new Interrupted("SIGINT"));
    expect(await rejectionOf(shell(`touch '${tree.at("started")}'`, { signal }))).toEqual(new Interrupted("SIGINT"));
    expect(existsSync(tree.at("started"))).toBe(false);
  });

  test.concurrent("kills what does not listen to SIGTERM", async () => {
    const controller = new AbortController();
    const pid = waitFor(/(\d+)\n/);
    const script = "trap '' TERM; sleep 300 & echo $! >&2; wait";
    const work = shell(script, { signal: controller.signal, stderr: pid.hear });
    void pid.found.then(() => controller.abort(new Interrupted("SIGTERM")));
    expect(await rejectionOf(work)).toBeInstanceOf(Interrupted);
    await untilDead(Number(await pid.found));
  });

  test.concurrent.skipIf(Bun.which("setsid") === null)(
    "does not wait for what has left the group with our pipes",
    async () => {
      const pid = waitFor(/(\d+)\n/);
      try {
        const work = shell("setsid sh -c 'echo $$ >&2; exec sleep 300' & wait", { timeout: 200, stderr: pid.hear });
        expect((await errorOf(work, CommandError)).message).toBe("Cannot run sh: no answer within 0.2 s");
      } finally {
        process.kill(Number(await pid.found), "SIGKILL");
      }
    },
  );

  test("leaves the program in our process group if so asked", async () => {
    const groupOf = async (group: "own" | "terminal" | "probe"): Promise<string> =>
      textOf((await shell("ps -o pgid= -p $$", { group })).stdout).trim();
    const ours = textOf((await host.run(["ps", "-o", "pgid=", "-p", String(process.pid)])).stdout).trim();
    const groups = [await groupOf("terminal"), await groupOf("own"), await groupOf("probe")];
    expect(groups.map((group) => group === ours)).toEqual([true, false, false]);
  });
});

describe("createHost()", () => {
  test("tells of the world", () => {
    const { cwd, platform, arch } = host;
    expect({ cwd, platform, arch }).toEqual({ cwd: process.cwd(), platform: process.platform, arch: process.arch });
    expect(host.env["PATH"]).toBe(process.env["PATH"] ?? "none");
    expect(host.cpus).toBeGreaterThan(0);
    expect(Math.abs(host.now().getTime() - Date.now())).toBeLessThan(60_000);
  });

  test("counts the milliseconds since the runtime began, and never back", () => {
    const times = [host.monotonic(), host.monotonic(), performance.now()];
    expect(times).toEqual(times.toSorted((a, b) => a - b));
    expect(times[0]).toBeGreaterThan(0);
  });

  test("finds programs on PATH only", () => {
    expect([host.findProgram("sh")?.endsWith("/sh"), host.findProgram("ko-no-such-program")]).toEqual([
      true,
      undefined,
    ]);
  });

  test("makes a temporary folder that is gone afterwards, with all in it", async () => {
    let path;
    {
      await using folder = await host.tempFolder("ko-host");
      path = folder.path;
      await Bun.write(join(path, "deep/file"), "x");
      expect(path).toContain("/ko-host-");
    }
    expect(existsSync(path)).toBe(false);
  });

  test("does not mind a temporary folder that is gone already", async () => {
    await using folder = await host.tempFolder("ko-host");
    await host.run(["rm", "-r", folder.path]);
    expect(existsSync(folder.path)).toBe(false);
  });
});

interface Ended {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

/** Runs helpers/world-host.ts through a shell command line in which `$KO` stands for it. */
async function inShell(
  line: string,
  options: { readonly env?: Record<string, string>; readonly cwd?: string } = {},
): Promise<Ended> {
  const child = Bun.spawn(["bash", "-c", line.replaceAll("$KO", `"${process.execPath}" "${PROGRAM}"`)], {
    env: { ...process.env, ...options.env },
    cwd: options.cwd ?? "/",
    stderr: "pipe",
  });
  const [out, err, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  return { code, out, err };
}

describe("Host.out() and Host.err() in a real process", () => {
  test("deliver 5 MB to a reader that takes its time", async () => {
    expect(await inShell("$KO out 5000000 | { sleep 0.3; wc -c; }")).toEqual({ code: 0, out: "5000000\n", err: "" });
  });

  test.each([5, 5_000_000])("fail with one line if %d bytes do not fit", async (size) => {
    expect(await inShell(`$KO out ${size} > /dev/full`)).toEqual({
      code: 1,
      out: "",
      err: "Error: Cannot write to standard output: ENOSPC: no space left on device, write\n",
    });
  });

  test.each(["out 5", "out 5000000", "nothing"])("fail with one line if stdout is closed: %s", async (task) => {
    expect(await inShell(`$KO ${task} >&-`)).toEqual({
      code: 1,
      out: "",
      err: "Error: Cannot write to standard output: it is closed\n",
    });
  });

  test.each(["> /dev/null", "1<> /dev/null", "< /dev/null > /dev/null"])("do not fail with %s", async (redirection) => {
    expect(await inShell(`$KO out 5000000 ${redirection}`)).toEqual({ code: 0, out: "", err: "" });
  });

  test("fail with one line if nobody reads any more", async () => {
    expect(await inShell("set -o pipefail; $KO out 5000000 | true")).toEqual({
      code: 1,
      out: "",
      err: "Error: Cannot write to standard output: EPIPE: broken pipe, write\n",
    });
  });

  test.each([
    ["a pipe", "$KO both 2>&1 | cat"],
    ["a file", '$KO both > "$F" 2>&1; cat "$F"'],
    ["a file that has something in it", 'echo e0 > "$F"; $KO both >> "$F" 2>&1; tail -n +2 "$F"'],
  ])("keep their order in %s that both write to", async (_, line) => {
    using tree = writeTree({});
    const { out } = await inShell(line, { env: { F: tree.at("file") } });
    expect(out).toBe("e1\no1\ne2\ne3\no2\ne4\n");
  });

  test("append much to a file that has something in it", async () => {
    using tree = writeTree({ file: "kept\n" });
    await inShell('$KO out 100000 >> "$F"', { env: { F: tree.at("file") } });
    expect(await Bun.file(tree.at("file")).text()).toBe(`kept\n${(await inShell("$KO out 100000")).out}`);
  });

  test("leave a file alone if there is nothing to write", async () => {
    using tree = writeTree({ file: "kept\n" });
    await inShell('$KO nothing >> "$F" 2>> "$F"', { env: { F: tree.at("file") } });
    expect(await Bun.file(tree.at("file")).text()).toBe("kept\n");
  });

  test.each([
    ["a slow pipe", "$KO lines 20000 2>&1 > /dev/null | { sleep 0.3; md5sum; }"],
    ["a file", '$KO lines 20000 2> "$F"; md5sum < "$F"'],
  ])("deliver every line to %s before the process ends", async (_, line) => {
    using tree = writeTree({});
    const lines = Array.from({ length: 20_000 }, (__, i) => `line ${i} ${"x".repeat(90)}\n`).join("");
    const { out } = await inShell(line, { env: { F: tree.at("file") } });
    expect(out).toBe(`${new Bun.CryptoHasher("md5").update(lines).digest("hex")}  -\n`);
  });

  test.each(["2> /dev/full", "2>&-", "2>&1 > /dev/null | true"])("do not fail over stderr: %s", async (redirection) => {
    expect((await inShell(`set -o pipefail; $KO lines 20000 ${redirection}`)).code).toBe(0);
  });

  test("show a program's stderr among our own lines", async () => {
    expect(await inShell("$KO tee")).toEqual({ code: 0, out: "", err: "before\none\ntwo\nafter\n" });
  });
});

describe("Host.readStdin() in a real process", () => {
  test.each([
    ["3 MB of a pipe", "head -c 3000000 /dev/zero | $KO stdin 9000000", "3000000\n"],
    ["just as much as is allowed", "printf 12345 | $KO stdin 5", "5\n"],
    ["nothing", "$KO stdin 5 < /dev/null", "0\n"],
    ["a closed stream", "$KO stdin 5 <&-", "0\n"],
  ])("reads %s", async (_, line, out) => {
    expect(await inShell(line)).toEqual({ code: 0, out, err: "ready\n" });
  });

  test.each([
    ["too much", "printf 123456 | $KO stdin 5", "Cannot read standard input: it is more than 5 bytes"],
    ["too much of an endless stream", "$KO stdin 5 < /dev/zero", "Cannot read standard input: it is more than 5 bytes"],
    ["a folder", "$KO stdin 5 < /etc", "Cannot read standard input: EISDIR: illegal operation on a directory, fstat"],
  ])("fails on %s", async (_, line, message) => {
    expect(await inShell(line)).toEqual({ code: 1, out: "", err: `ready\nError: ${message}\n` });
  });
});

/** A running helpers/world-host.ts, with an ear at its stderr. */
function start(
  task: string,
  number = "0",
): {
  readonly child: Bun.Subprocess<"pipe", "pipe", "pipe">;
  readonly said: () => string;
  readonly hears: (pattern: RegExp) => Promise<string>;
} {
  const child = Bun.spawn([process.execPath, PROGRAM, task, number], { stdin: "pipe", stdout: "pipe", stderr: "pipe" });
  let heard = "";
  const ears: ((text: string) => void)[] = [];
  const listening = (async () => {
    const decoder = new TextDecoder();
    for await (const chunk of child.stderr) {
      const text = decoder.decode(chunk, { stream: true });
      heard += text;
      for (const ear of ears) ear(text);
    }
  })();
  return {
    child,
    said: () => heard,
    hears: async (pattern) => {
      const { found, hear } = waitFor(pattern);
      ears.push(hear);
      hear(heard);
      const silent = Promise.all([listening, child.exited]).then(() => {
        throw new Error(`it ended without saying ${pattern}: ${heard}`);
      });
      return Promise.race([found, silent]);
    },
  };
}

describe("signals in a real process", () => {
  // Under nohup, children ignore SIGHUP from their start, as they should.
  const hangupIgnored = /^SigIgn:\s*[0-9a-f]*[13579bdf]$/m.test(readFileSync("/proc/self/status", "utf8"));
  test.skipIf(hangupIgnored)("SIGHUP ends the children and the temporary folder, exit code 129", async () => {
    const { child, hears } = start("child");
    const folder = await hears(/^folder (.*)$/m);
    const pid = Number(await hears(/^pid (\d+)$/m));
    child.kill("SIGHUP");
    expect(await child.exited).toBe(129);
    await untilDead(pid);
    expect(existsSync(folder)).toBe(false);
  });

  test.each([
    ["SIGINT", 130],
    ["SIGTERM", 143],
  ] as const)("%s ends the children and the temporary folder, exit code %d", async (signal, code) => {
    const { child, said, hears } = start("child");
    const folder = await hears(/^folder (.*)$/m);
    const pid = Number(await hears(/^pid (\d+)$/m));
    expect([existsSync(folder), isAlive(pid)]).toEqual([true, true]);
    child.kill(signal);
    expect(await child.exited).toBe(code);
    await untilDead(pid);
    expect(existsSync(folder)).toBe(false);
    await hears(/^(Error: .*)$/m);
    expect(said()).toEndWith(`Error: interrupted by ${signal}\n`);
  });

  test.each([
    ["SIGINT", 130],
    ["SIGTERM", 143],
  ] as const)("a second %s does not wait for anybody, and leaves nothing behind", async (signal, code) => {
    const { child, hears } = start("stubborn");
    const folder = await hears(/^folder (.*)$/m);
    const pid = Number(await hears(/^pid (\d+)$/m));
    child.kill("SIGINT");
    await hears(/^(stopping)$/m);
    expect([existsSync(folder), isAlive(pid)]).toEqual([true, true]);
    child.kill(signal);
    expect(await child.exited).toBe(code);
    await untilDead(pid);
    expect(existsSync(folder)).toBe(false);
  });

  test("SIGINT ends the waiting for standard input", async () => {
    const { child, said, hears } = start("stdin", "100");
    await hears(/^(ready)$/m);
    child.kill("SIGINT");
    expect(await child.exited).toBe(130);
    await hears(/^(Error: .*)$/m);
    expect(said()).toBe("ready\nError: interrupted by SIGINT\n");
  });
});

describe("Host.tempFolder() in a real process", () => {
  test("obeys TMPDIR, and leaves nothing there", async () => {
    using tree = writeTree({});
    const { code, out } = await inShell("$KO temporary", { env: { TMPDIR: tree.path } });
    expect([code, out.startsWith(`${tree.path}/ko-host-`), existsSync(out.trim())]).toEqual([0, true, false]);
  });

  test("says that TMPDIR is not there", async () => {
    const { code, err } = await inShell("$KO temporary", { env: { TMPDIR: "/no/such" } });
    expect(code).toBe(1);
    expect(err).toStartWith('Error: Cannot make a temporary folder in "/no/such": ENOENT');
    expect(err).toEndWith("\n  Set TMPDIR to a folder that can be written to.\n");
  });
});

describe("withSignal()", () => {
  test("ends what it starts with the other signal, unless a call brings its own", async () => {
    const controller = new AbortController();
    const world = withSignal(host, controller.signal);
    const reason = new Error("superseded");
    const running = world.run(["sleep", "300"]);
    const own = world.run(["echo", "own"], { signal: new AbortController().signal });
    controller.abort(reason);
    expect(await rejectionOf(running)).toBe(reason);
    expect(textOf((await own).stdout)).toBe("own\n");
    expect(world.signal.aborted).toBe(true);
  });
});

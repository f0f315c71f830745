/**
 * A program with a real host, for `host.test.ts`: what only a whole process shows (signals, closed pipes, its end).
 *
 * `bun hostprogram.ts TASK [NUMBER]`
 */
import { describeError, exitCodeOf } from "../../lib/errors.ts";
import { createHost, type Host } from "../../lib/host.ts";

/** Tells the pid of a grandchild on stderr, and waits for it. */
const FORKING = "sleep 300 & echo pid $! >&2; wait";

async function perform(
  task: string,
  { host, number }: { readonly host: Host; readonly number: number },
): Promise<void> {
  switch (task) {
    case "out":
      return host.out(`${"x".repeat(number - 1)}\n`);
    case "nothing":
      await host.out("");
      host.err("");
      return;
    case "both":
      host.err("e1\n");
      await host.out("o1\n");
      host.err("e2\n");
      host.err("e3\n");
      await host.out("o2\n");
      host.err("e4\n");
      return;
    case "lines":
      // As a renderer does: it makes the stream non-blocking.
      if (host.stderrIsTerminal) throw new Error("a terminal");
      for (let i = 0; i < number; i++) host.err(`line ${i} ${"x".repeat(90)}\n`);
      return;
    case "tee":
      host.err("before\n");
      await host.run(["sh", "-c", "printf 'one\\ntwo\\n' >&2; echo data"], { stderr: "tee" });
      host.err("after\n");
      return;
    case "stdin":
      host.err("ready\n");
      return host.out(`${(await host.readStdin(number)).byteLength}\n`);
    case "temporary": {
      await using folder = await host.tempFolder("ko-host");
      return host.out(`${folder.path}\n`);
    }
    case "child": {
      await using folder = await host.tempFolder("ko-host");
      host.err(`folder ${folder.path}\n`);
      await host.run(["sh", "-c", FORKING], { stderr: "tee" });
      return;
    }
    case "stubborn": {
      await using folder = await host.tempFolder("ko-host");
      host.err(`folder ${folder.path}\n`);
      host.signal.addEventListener("abort", () => host.err("stopping\n"));
      await host.run(["sh", "-c", `trap '' TERM; ${FORKING}`], { stderr: "tee" }).catch(() => {});
      return new Promise(() => {});
    }
    default:
      throw new Error(`no task ${task}`);
  }
}

if (import.meta.main) {
  const [task = "", number = "0"] = process.argv.slice(2);
  const host = createHost();
  try {
    await perform(task, { host, number: Number(number) });
  } catch (error) {
    host.err(`${describeError(error)}\n`);
    process.exitCode = exitCodeOf(error);
  }
}

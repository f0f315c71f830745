/**
 * The real world seen from another folder, with another environment, and ko's command line in it: quicker than a process each
 * time.
 *
 * Run as `bun world-host.ts TASK [NUMBER]` it is a program with a real host, for `host.test.ts`: signals, closed pipes and the
 * end of a process are seen from outside only.
 */
import { describeError, exitCodeOf } from "../../lib/errors.ts";
import { createHost, type Host } from "../../lib/host.ts";
import type { Result } from "./world-programs.ts";

export interface RunKoHereOptions {
  readonly cwd: string;
  /** The whole environment. */
  readonly env: Readonly<Record<string, string>>;
  /** Replaces other parts of the outside. */
  readonly host?: Partial<Host>;
}

/** Made once: it listens to signals. */
export const realHost: Host = createHost();

/** Tells the pid of a grandchild on stderr, and waits for it. */
const FORKING = "sleep 300 & echo pid $! >&2; wait";

/** A host in `cwd`; `changes` replaces the rest, the environment for programs included. */
export function hostAt(cwd: string, changes: Partial<Host> = {}): Host {
  const host: Host = {
    ...realHost,
    cwd,
    findProgram: (name) => Bun.which(name, { PATH: host.env["PATH"] ?? "", cwd }) ?? undefined,
    run: (argv, options = {}) => realHost.run(argv, { cwd, env: host.env, signal: host.signal, ...options }),
    ...changes,
  };
  return host;
}

/** Runs `ko ARGS` to its end. */
export async function runKoHere(args: readonly string[], { cwd, env, host: more }: RunKoHereOptions): Promise<Result> {
  let stderr = "";
  const stdout: Uint8Array[] = [];
  const host = hostAt(cwd, {
    env,
    out: async (data) => void stdout.push(typeof data === "string" ? new TextEncoder().encode(data) : data.slice()),
    err: (text) => void (stderr += text),
    ...more,
  });
  const { main } = await import("../../ko.ts");
  const code = await main(args, host);
  return { code, stdout: Buffer.concat(stdout).toString(), stderr };
}

/** Text of one style. */
export interface StyledText {
  readonly text: string;
  /** One of the eight colours of a terminal, from 0 on; undefined is the terminal's own. */
  readonly color: number | undefined;
  readonly isBold: boolean;
}

/** A terminal without a window: it takes the output of a program, and says what a person sees. */
export interface Screen {
  write(text: string | Uint8Array): Promise<void>;
  resize(columns: number, rows: number): void;
  /** The lines on the screen, without blanks and empty lines at the end. */
  lines(): readonly string[];
  /** All lines, also those that have scrolled away. */
  history(): readonly string[];
  /** The lines on the screen with their styles. */
  styled(): readonly (readonly StyledText[])[];
}

/** Opens an empty terminal, with the size that {@link Screen.resize} changes. */
export async function openScreen(columns = 80, rows = 24): Promise<Screen> {
  const { Terminal } = await import("@xterm/headless");
  const terminal = new Terminal({ cols: columns, rows, allowProposedApi: true, convertEol: true, scrollback: 1000 });
  const read = (from: number): readonly string[] => {
    const { active } = terminal.buffer;
    const count = active.length - from;
    const lines = Array.from({ length: count }, (_, i) => active.getLine(from + i)?.translateToString(true) ?? "");
    return lines.slice(0, lines.findLastIndex((line) => line !== "") + 1);
  };
  return {
    write: (text) => new Promise((resolve) => terminal.write(text, resolve)),
    resize: (width, height) => terminal.resize(width, height),
    lines: () => read(terminal.buffer.active.baseY),
    history: () => read(0),
    styled: () => {
      const { active } = terminal.buffer;
      return read(active.baseY).map((text, i) => {
        const runs: StyledText[] = [];
        const line = active.getLine(active.baseY + i);
        for (let x = 0; x < text.length; x++) {
          const cell = line?.getCell(x);
          const color = cell?.isFgPalette() === true ? cell.getFgColor() % 8 : undefined;
          const isBold = (cell?.isBold() ?? 0) > 0;
          const last = runs.at(-1);
          const joins = last !== undefined && last.color === color && last.isBold === isBold;
          if (joins) runs.pop();
          runs.push({ text: `${joins ? last.text : ""}${text.charAt(x)}`, color, isBold });
        }
        return runs;
      });
    },
  };
}

/** A task of the program; each shows something that only a whole process shows. */
async function perform(task: string, number: number): Promise<void> {
  const host = realHost;
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
  try {
    await perform(task, Number(number));
  } catch (error) {
    realHost.err(`${describeError(error)}\n`);
    process.exitCode = exitCodeOf(error);
  }
}

import { describe, expect, test } from "bun:test";
import type { Event } from "../lib/events.ts";
import { SilenceNotes } from "../lib/progress-notes.ts";

interface World {
  readonly notes: SilenceNotes;
  readonly written: string[];
  readonly pass: (seconds: number) => void;
}

/** Time passes in steps of half a second. */
function open(): World {
  const written: string[] = [];
  let [now, look] = [0, (): void => {}];
  const every = (_: number, again: () => void): (() => void) => {
    look = again;
    return () => void (look = () => {});
  };
  const notes = new SilenceNotes({ host: { monotonic: () => now, err: (text) => void written.push(text) }, every });
  const pass = (seconds: number): void => {
    for (let i = 0; i < seconds * 2; i++) {
      now += 500;
      look();
    }
  };
  return { notes, written, pass };
}

const PROGRAMS: readonly Event[] = ["web", "worker"].map((name) => ({
  type: "program",
  importPath: `example.com/${name}`,
  image: `r/${name}`,
  platforms: ["linux/amd64"],
  tags: [],
  base: "b",
}));
const COMPILING: Event = {
  type: "stage",
  state: "begin",
  stage: "compile",
  id: 1,
  subject: { text: "", importPaths: ["example.com/web", "example.com/worker"] },
};

describe("SilenceNotes", () => {
  test("writes after 2 s of silence, then at growing intervals", () => {
    const { notes, pass, written } = open();
    for (const event of [...PROGRAMS, COMPILING]) notes.add(event);
    pass(1.5);
    expect(written).toEqual([]);
    pass(0.5);
    expect(written).toEqual(["Still compiling web, worker, 2.0 s\n"]);
    pass(170);
    expect(written.map((line) => line.replace(/^.*, /, ""))).toEqual([
      "2.0 s\n",
      "12 s\n",
      "42 s\n",
      "1 min 42 s\n",
      "2 min 42 s\n",
    ]);
  });

  test("another line begins the silence again", () => {
    const { notes, pass, written } = open();
    for (const event of [...PROGRAMS, COMPILING]) notes.add(event);
    for (let i = 0; i < 5; i++) {
      pass(1.5);
      notes.restart();
    }
    expect(written).toEqual([]);
    pass(2);
    expect(written).toEqual(["Still compiling web, worker, 9.5 s\n"]);
  });

  test("says nothing if nothing is known to run, or after the end", () => {
    const { notes, pass, written } = open();
    for (const event of PROGRAMS) notes.add(event);
    pass(20);
    notes.add(COMPILING);
    notes[Symbol.dispose]();
    pass(20);
    expect(written).toEqual([]);
  });
});

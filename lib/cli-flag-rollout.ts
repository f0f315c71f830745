/** Tables of the flags of what happens in the cluster after kubectl. */

/** The wait for a rollout. */
export const WAIT_FLAGS = {
  wait: {
    kind: "optional",
    default: false,
    placeholder: "TIME",
    help: "Wait until the applied objects run, at most TIME (2m). If one does not run, say why. With -W, ko always tells that and never waits; --wait=false turns it off.",
  },
} as const;

/** The output of programs. */
export const LOGS_FLAGS = {
  logs: {
    kind: "bool",
    default: false,
    help: "With -W: show on stderr what the programs print in the cluster, with their names before each line.",
  },
} as const;

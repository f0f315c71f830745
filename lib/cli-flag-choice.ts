/** The table of the flags that choose among the programs of a repository. */
export const CHOICE_FLAGS = {
  all: {
    kind: "bool",
    default: false,
    help: "Build every main package of the modules at and below the working directory, and the program of each entry of builds in .ko.yaml.",
  },
  "changed-since": {
    kind: "text",
    default: "",
    placeholder: "REV",
    help: "Build only the programs whose inputs differ from this git revision: sources, embedded files and kodata of the package graph, go.mod, go.sum, .ko.yaml. Files that git does not track or ignores count as changed.",
  },
} as const;

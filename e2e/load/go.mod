module tidegate.dev/e2e/load

go 1.24

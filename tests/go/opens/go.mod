module example.com/opens

go 1.22
